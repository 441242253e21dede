/* SPDX-License-Identifier: MIT */
/*
 * The format of a patch file: a relocatable ELF object for x86-64 (ET_REL) with
 * the changed functions as the compiler made them, and besides its symbol table
 * and relocations the sections below.  They take no memory in the process
 * (no SHF_ALLOC).  All numbers are little endian; a section is exactly its
 * array; reserved bits and bytes are 0.
 */
#ifndef WFLP_PATCH_H
#define WFLP_PATCH_H

#include <stdint.h>

#define WFLP_PATCH_MAGIC	"WFLPATCH"	/* without its NUL */
#define WFLP_PATCH_VERSION	1u

#define WFLP_PATCH_HEAD		".wflp.head"	/* one struct wflp_patch_head */
#define WFLP_PATCH_OBJECTS	".wflp.objects"	/* struct wflp_patch_object[] */
#define WFLP_PATCH_FUNCS	".wflp.funcs"	/* struct wflp_patch_func[] */
#define WFLP_PATCH_SYMS		".wflp.syms"	/* struct wflp_patch_sym[] */
#define WFLP_PATCH_STR		".wflp.str"	/* strings, each with its NUL; 0 is "" */
#define WFLP_PATCH_ORIGIN	".wflp.origin"	/* JSON for people; the loader does not read it */

/*
 * id: SHA-256 of the whole file with these 32 bytes taken as 0.  It names the
 * patch, and the loader refuses a file that it does not fit.
 */
struct wflp_patch_head {
	uint8_t magic[8];
	uint32_t version;
	uint32_t head_size;	/* sizeof(struct wflp_patch_head) */
	uint32_t object_count;
	uint32_t function_count;
	uint32_t symbol_count;
	uint32_t flags;		/* 0 */
	uint8_t id[32];
	uint32_t name_off;	/* the patch's name, for people, in .wflp.str */
	uint32_t pad;
};

/*
 * A file of the running program that the patch refers to.  The first one is
 * the program itself, with the name ""; the others are shared libraries, named
 * by their DT_SONAME.
 */
struct wflp_patch_object {
	uint32_t name_off;
	uint32_t build_id_size;	/* 1 to 32 */
	uint8_t build_id[32];	/* the rest is 0 */
};

/* The patch holds a function also for threads that are in the old one meanwhile. */
#define WFLP_PATCH_FUNC_ANYTIME	1u
/*
 * Not redirected, only looked for on stacks: what the compiler put elsewhere of a
 * function that is replaced (NAME.cold).  new_symbol is 0.
 */
#define WFLP_PATCH_FUNC_PART	2u

/*
 * A function that is replaced.  Its first bytes become a jump: 5 bytes, or 14
 * where the new code is more than 2 GiB away, so it must be that long.
 */
struct wflp_patch_func {
	uint32_t object;	/* index into .wflp.objects */
	uint32_t new_symbol;	/* index into .symtab: a function of the patch */
	uint64_t old_addr;	/* as the object's program headers count addresses */
	uint64_t old_size;	/* may include padding that belongs to no function */
	uint8_t old_sha256[32];	/* of these bytes in the object's file */
	uint32_t name_off;
	uint32_t flags;		/* WFLP_PATCH_FUNC_... */
};

#define WFLP_PATCH_BY_NAME	0xffffffffu	/* wflp_patch_sym.object: any, as dlsym(RTLD_DEFAULT) finds it */

#define WFLP_PATCH_SYM_TLS	1u	/* addr is an offset in the object's TLS segment (st_value) */

/* What an undefined symbol of .symtab is; each one has an entry. */
struct wflp_patch_sym {
	uint32_t symbol;	/* index into .symtab */
	uint32_t object;	/* index into .wflp.objects, or WFLP_PATCH_BY_NAME */
	uint64_t addr;		/* as the object's program headers count; 0 if by name */
	uint32_t name_off;	/* needed if by name, else for messages */
	uint32_t flags;		/* WFLP_PATCH_SYM_... */
};

#endif /* WFLP_PATCH_H */
