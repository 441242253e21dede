/* SPDX-License-Identifier: MIT */
/*
 * What the files of the loader share: patchfile.c reads a file and believes
 * nothing, load.c fits it into the process, stack.c applies patches and takes them
 * back.  It is a part of its own: the rest of the library does not need it, and it
 * needs of the rest what any caller could use, but for wflp_apply_watched().
 */
#ifndef WFLP_LOAD_INTERNAL_H
#define WFLP_LOAD_INTERNAL_H

#include <elf.h>

#include "internal.h"
#include "wflp-load.h"
#include "wflp-patch.h"

struct wflp_sha256 {
	uint32_t h[8];
	uint64_t len;
	uint8_t buf[64];
};
void wflp_sha256_begin(struct wflp_sha256 *s) HIDDEN;
void wflp_sha256_add(struct wflp_sha256 *s, const void *data, size_t len) HIDDEN;
void wflp_sha256_end(struct wflp_sha256 *s, uint8_t digest[32]) HIDDEN;

/* Where a caller wants to read what is wrong. */
struct why {
	char *text;
	size_t room;
};
/* Returns err. */
int wflp_why(const struct why *why, int err, const char *fmt, ...) HIDDEN
	__attribute__((format(printf, 3, 4)));

/* A section header that has been checked: the content is in the file. */
struct section {
	const char *name;
	Elf64_Shdr h;
	const uint8_t *data;	/* NULL: NOBITS */
};

/* A file of which every number has been looked at. */
struct patchfile {
	uint8_t *file;		/* a copy of our own */
	size_t size;
	struct section *sections;
	unsigned int nsections;
	struct wflp_patch_head head;
	struct wflp_patch_object *objects;
	struct wflp_patch_func *funcs;
	struct wflp_patch_sym *syms;
	const char *str;
	Elf64_Sym *symtab;
	size_t nsymtab;
	const char *symstr;
	const struct wflp_patch_sym **undefined;	/* by index of symtab; NULL: defined */
};
int wflp_patchfile_read(struct patchfile *pf, const void *file, size_t size,
			const struct why *why) HIDDEN;
void wflp_patchfile_free(struct patchfile *pf) HIDDEN;
const char *wflp_patchfile_symbol(const struct patchfile *pf, size_t i) HIDDEN;
/* What head.id must be. */
void wflp_patchfile_id(const uint8_t *file, size_t size, size_t id_at, uint8_t id[32]) HIDDEN;

/* A function that is replaced, or a part of one. */
struct target {
	uintptr_t addr;
	size_t size;
	uint8_t sha256[32];
	uintptr_t new_addr;	/* 0: a part */
	size_t new_size;
	bool anytime;
	const char *name;
};

/* Code that a frame description belongs to, in order of address. */
struct unwind_entry {
	int32_t start, fde;	/* relative to the table */
};

struct wflp_patch {
	struct wflp_patch *next;	/* all that are mapped */
	uint8_t id[32];
	char *name;
	uint8_t *map;
	size_t map_size;
	uintptr_t code, code_end;
	const struct unwind_entry *unwind;	/* in map, so that it is read as the rest */
	size_t nunwind;
	struct target *targets;
	size_t ntargets;
	char *names;

	/* stack.c */
	struct wflp_patch *below;	/* applied before this one */
	bool applied, ever;
	size_t opened;		/* calls of wflp_patch_open() that have not been closed */
	struct wflp_patch *run_next;	/* of those that were ever applied */
	struct wflp_edit *edits;
	size_t nedits;
	uint8_t *bytes;
	const struct wflp_ranges *away, *back;	/* a stack must be free of these to move */
	uint64_t generation;
};

int wflp_patch_map(struct wflp_patch *p, const struct patchfile *pf, const struct why *why) HIDDEN;
void wflp_patch_unmap(struct wflp_patch *p) HIDDEN;

/* The patch whose code is at addr, or NULL: for unwinding, from any thread. */
const struct wflp_patch *wflp_patch_at(uintptr_t addr) HIDDEN;
/* The same for anything of it, code or data. */
const struct wflp_patch *wflp_patch_of(uintptr_t addr) HIDDEN;

struct wflp_patch_info {
	uint8_t id[32];
	const char *name;
	uint64_t generation;
	size_t functions;
};
/* The patches that are applied, oldest first, room at most; returns how many. */
size_t wflp_patches(struct wflp_patch_info *info, size_t room) HIDDEN;
/* The ticket of the last transaction, 0: none. */
int64_t wflp_patch_ticket(void) HIDDEN;
struct wflp_patch *wflp_patch_newest(void) HIDDEN;

#endif /* WFLP_LOAD_INTERNAL_H */
