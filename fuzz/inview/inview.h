/* SPDX-License-Identifier: Apache-2.0 */
/* What inview.so and inview-run have to agree on. */
#ifndef INVIEW_H
#define INVIEW_H

/* Where notes are left; anybody may write there. */
#define INVIEW_NOTES "/run/inview"

/* Exit code of a process that is not in a view and could not say so. */
#define INVIEW_LOST 121

#endif
