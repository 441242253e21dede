module github.com/wflp/wflp

go 1.26.0

require golang.org/x/sys v0.49.0

require (
	github.com/HdrHistogram/hdrhistogram-go v1.4.0 // indirect
	github.com/cavaliergopher/cpio v1.0.1 // indirect
	github.com/google/gofuzz v1.2.0 // indirect
	golang.org/x/arch v0.32.0 // indirect
)
