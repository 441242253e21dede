// SPDX-License-Identifier: Apache-2.0

package kernel

import "github.com/wflp/wflp/internal/build"

// The tools of the package build under the names that they have here.
var (
	command         = build.Command
	output          = build.Output
	lastLines       = build.LastLines
	lockFile        = build.Lock
	writeFileAtomic = build.WriteFileAtomic
	firstLine       = build.FirstLine
	fileSHA256      = build.SHA256
	isDir           = build.IsDir
	isFile          = build.IsFile
	seriesDigest    = build.SeriesDigest
	touchedFiles    = build.TouchedFiles
)

// Patch is one patch of a series.
type Patch = build.Patch
