/* SPDX-License-Identifier: MIT */
/*
 * Fitting a patch into the process: which of the loaded files it speaks of, what
 * its undefined symbols are, where there is room for it, and its relocations.
 *
 * No mapping is writable and executable, and none that can be written becomes
 * executable later, so a process may have given both up (PR_SET_MDWE, systemd's
 * MemoryDenyWriteExecute).  The code is put together in ordinary memory and
 * written to a memfd, which is sealed; what is mapped of that was executable from
 * the start and never writable.
 *
 * The code could also be written where only views have it, through a view's
 * descriptor.  But a thread that runs the new code may hand out a pointer to a
 * new function, and another that has not moved yet may call it.  So new code is
 * there for all, before anybody can come to it, and stays when it is taken back.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <fcntl.h>

#include "load.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u
#endif
#ifndef R_X86_64_REX_GOTPCRELX
#define R_X86_64_REX_GOTPCRELX 42
#endif

/* A program that is linked statically has no such function, and needs none. */
void *dlsym(void *handle, const char *name) __attribute__((weak));

#define PAGE 4096ul
#define STUB_SIZE 8u

/* How far the first byte of a patch may be from the last one of its target. */
#define REACH ((1ul << 31) - (1ul << 24))

/* A file of the patch's list, as it is loaded. */
struct object {
	bool found;
	uintptr_t base, lo, hi;
	const ElfW(Phdr) *phdr;
	size_t phnum;
	const ElfW(Phdr) *tls;
	size_t tls_module;
	uintptr_t tls_data;	/* of the calling thread */
};

/* What the loader makes for a symbol: slots of its table of addresses, and a stub. */
struct slots {
	uint32_t addr, tpoff, gd;	/* index + 1; 0: none */
	uint32_t stub;
};

struct image {
	const struct patchfile *pf;
	const struct why *why;
	struct object *objects;
	uint64_t *offset;	/* of each section that is loaded */
	struct slots *slots;
	uint32_t nslots, nstubs, ld;
	uint64_t stubs, got, table, rx, ro, size;	/* offsets; ends of parts */
	size_t nunwind;
	uint8_t *bytes;
	uintptr_t base;
};

/* ---- files ---- */

static const char *soname(const struct dl_phdr_info *info)
{
	const ElfW(Dyn) *dyn = NULL;
	uintptr_t strings = 0, name = 0;
	bool has = false;

	for (size_t i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
			dyn = (const void *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
	for (; dyn && dyn->d_tag != DT_NULL; dyn++)
		if (dyn->d_tag == DT_STRTAB) {
			strings = dyn->d_un.d_ptr;
		} else if (dyn->d_tag == DT_SONAME) {
			name = dyn->d_un.d_val;
			has = true;
		}
	if (!strings || !has)
		return NULL;
	/* The dynamic linker has relocated it, but not in the vDSO. */
	if (strings < info->dlpi_addr)
		strings += info->dlpi_addr;
	return (const char *)strings + name;
}

struct search {
	const struct image *im;
	bool first;
};

static int look(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct search *s = arg;
	const struct patchfile *pf = s->im->pf;
	const char *name = s->first ? "" : soname(info);
	struct object *o = NULL;

	for (uint32_t i = 0; i < pf->head.object_count && !o; i++)
		if (name && !s->im->objects[i].found &&
		    !strcmp(name, pf->str + pf->objects[i].name_off))
			o = &s->im->objects[i];
	s->first = false;
	if (!o)
		return 0;
	o->found = true;
	o->base = info->dlpi_addr;
	o->phdr = info->dlpi_phdr;
	o->phnum = info->dlpi_phnum;
	o->lo = UINTPTR_MAX;
	for (size_t i = 0; i < o->phnum; i++) {
		const ElfW(Phdr) *ph = &o->phdr[i];

		if (ph->p_type == PT_TLS)
			o->tls = ph;
		if (ph->p_type != PT_LOAD)
			continue;
		if (o->base + ph->p_vaddr < o->lo)
			o->lo = o->base + ph->p_vaddr;
		if (o->base + ph->p_vaddr + ph->p_memsz > o->hi)
			o->hi = o->base + ph->p_vaddr + ph->p_memsz;
	}
	if (size >= offsetof(struct dl_phdr_info, dlpi_tls_data) + sizeof(void *)) {
		o->tls_module = info->dlpi_tls_modid;
		o->tls_data = (uintptr_t)info->dlpi_tls_data;
	}
	return 0;
}

static bool note_is(const uint8_t *p, size_t size, const struct wflp_patch_object *want)
{
	while (size >= sizeof(ElfW(Nhdr))) {
		ElfW(Nhdr) n;
		size_t name, desc;

		memcpy(&n, p, sizeof(n));
		name = ((size_t)n.n_namesz + 3) & ~3ul;
		desc = ((size_t)n.n_descsz + 3) & ~3ul;
		p += sizeof(n);
		size -= sizeof(n);
		if (name > size || desc > size - name)
			return false;
		if (n.n_type == NT_GNU_BUILD_ID && n.n_namesz == 4 && !memcmp(p, "GNU", 4))
			return n.n_descsz == want->build_id_size &&
			       !memcmp(p + name, want->build_id, n.n_descsz);
		p += name + desc;
		size -= name + desc;
	}
	return false;
}

static int find_objects(struct image *im)
{
	const struct patchfile *pf = im->pf;
	struct search s = { im, true };

	dl_iterate_phdr(look, &s);
	for (uint32_t i = 0; i < pf->head.object_count; i++) {
		const struct object *o = &im->objects[i];
		const char *name = i ? pf->str + pf->objects[i].name_off : "the program";
		bool fits = false;

		if (!o->found)
			return wflp_why(im->why, -ENOENT, "%s is not loaded", name);
		for (size_t n = 0; n < o->phnum && !fits; n++)
			fits = o->phdr[n].p_type == PT_NOTE &&
			       note_is((const void *)(o->base + o->phdr[n].p_vaddr),
				       o->phdr[n].p_memsz, &pf->objects[i]);
		if (!fits)
			return wflp_why(im->why, -ESTALE,
					"the patch is for another build of %s (build ids differ)",
					name);
	}
	return 0;
}

static bool in_segment(const struct object *o, uint64_t addr, uint64_t size, uint32_t flags)
{
	for (size_t i = 0; i < o->phnum; i++) {
		const ElfW(Phdr) *ph = &o->phdr[i];

		if (ph->p_type == PT_LOAD && (ph->p_flags & flags) == flags &&
		    addr >= ph->p_vaddr && addr - ph->p_vaddr <= ph->p_memsz &&
		    size <= ph->p_memsz - (addr - ph->p_vaddr))
			return true;
	}
	return false;
}

/* ---- frame descriptions ---- */

/* Reads numbers from a part of a section; at beyond end means that it was too short. */
struct cursor {
	const uint8_t *p;
	size_t at, end;
};

static uint64_t take(struct cursor *c, size_t n)
{
	uint64_t v = 0;

	if (c->at > c->end || n > c->end - c->at) {
		c->at = c->end + 1;
		return 0;
	}
	memcpy(&v, c->p + c->at, n);
	c->at += n;
	return v;
}

static uint64_t take_leb(struct cursor *c)
{
	uint64_t v = 0, byte;
	unsigned int shift = 0;

	do {
		byte = take(c, 1);
		if (shift < 64)
			v |= (byte & 0x7f) << shift;
		shift += 7;
	} while (byte & 0x80 && c->at <= c->end);
	return v;
}

/* How pointers to code are written in descriptions of this CIE; -1: unknown. */
static int cie_encoding(struct cursor c)
{
	const char *aug = (const char *)c.p + c.at + 1;
	size_t len;

	if (take(&c, 1) != 1)
		return -1;
	len = strnlen(aug, c.at <= c.end ? c.end - c.at : 0);
	if (!len || aug[0] != 'z')
		return -1;
	take(&c, 0);
	c.at += len + 1;
	take_leb(&c);
	take_leb(&c);
	take_leb(&c);
	take_leb(&c);
	for (size_t i = 1; i < len; i++)
		switch (aug[i]) {
		case 'R':
			return c.at < c.end ? (int)take(&c, 1) : -1;
		case 'L':
			take(&c, 1);
			break;
		case 'P':	/* pcrel sdata4, indirect or not, is what gcc uses */
			if ((take(&c, 1) & 0x7f) != 0x1b)
				return -1;
			take(&c, 4);
			break;
		case 'S':
			break;
		default:
			return -1;
		}
	return -1;
}

#define EH_PCREL_SDATA4 0x1b

/*
 * Calls fn for each frame description of a section: where it is in it, and its
 * start relative to its own field.  Returns the number, or -1.
 */
static int64_t each_fde(const uint8_t *data, size_t size,
			void (*fn)(void *arg, size_t fde, int32_t start, uint32_t len), void *arg)
{
	size_t at = 0;
	int64_t n = 0;

	while (size - at >= 4) {
		struct cursor c = { data, at, size };
		uint64_t len = take(&c, 4), id;

		if (!len)
			break;
		if (len < 4 || len > size - c.at)
			return -1;
		c.end = c.at + len;
		id = take(&c, 4);
		if (id) {
			struct cursor cie = { data, c.at - 4 - id, size };
			uint64_t cie_len;
			int32_t start;
			uint32_t range;

			if (id > c.at - 4)
				return -1;
			cie_len = take(&cie, 4);
			if (cie.at > cie.end || cie_len < 4 || cie_len > size - cie.at)
				return -1;
			cie.end = cie.at + cie_len;
			if (take(&cie, 4) || cie_encoding(cie) != EH_PCREL_SDATA4)
				return -1;
			start = (int32_t)take(&c, 4);
			range = (uint32_t)take(&c, 4);
			if (c.at > c.end)
				return -1;
			if (fn)
				fn(arg, at, start, range);
			n++;
		}
		at = c.end;
	}
	return n;
}

static bool is_eh_frame(const struct section *s)
{
	return s->h.sh_flags & SHF_ALLOC && s->data && !strcmp(s->name, ".eh_frame");
}

struct making {
	struct image *im;
	uint64_t section;	/* its offset in the image */
	struct unwind_entry *table;
	size_t n;
	bool bad;
};

static void add_fde(void *arg, size_t fde, int32_t start, uint32_t len)
{
	struct making *m = arg;
	int64_t at = (int64_t)(m->section + fde), code = at + 8 + start;

	/*
	 * Of a section that was left out, and so its start is 0: there is no code.  Nor
	 * more than were counted: relocations may have changed the list.
	 */
	if (m->n == m->im->nunwind ||
	    code < 0 || (uint64_t)code > m->im->stubs || len > m->im->stubs - (uint64_t)code) {
		m->bad = true;
		return;
	}
	m->table[m->n++] = (struct unwind_entry){
		(int32_t)(code - (int64_t)m->im->table), (int32_t)(at - (int64_t)m->im->table),
	};
}

static int by_start(const void *a, const void *b)
{
	const struct unwind_entry *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

static int make_table(struct image *im)
{
	struct making m = {
		.im = im,
		.table = (struct unwind_entry *)(void *)(im->bytes + im->table),
	};

	for (unsigned int i = 1; i < im->pf->nsections; i++) {
		const struct section *s = &im->pf->sections[i];

		if (!is_eh_frame(s))
			continue;
		m.section = im->offset[i];
		if (each_fde(im->bytes + im->offset[i], s->h.sh_size, add_fde, &m) < 0)
			m.bad = true;
	}
	if (m.bad || m.n != im->nunwind)
		return wflp_why(im->why, -EBADMSG, "its frame descriptions are damaged");
	qsort(m.table, m.n, sizeof(*m.table), by_start);
	return 0;
}

/* ---- relocations ---- */

enum needs { NEED_NONE, NEED_ADDR, NEED_STUB, NEED_TPOFF, NEED_GD, NEED_LD };

static const struct type {
	uint32_t type;
	const char *name;
	unsigned int width;
	enum needs needs;
	bool tls;
} types[] = {
	{ R_X86_64_NONE, "NONE", 0, NEED_NONE, false },
	{ R_X86_64_64, "64", 8, NEED_NONE, false },
	{ R_X86_64_PC32, "PC32", 4, NEED_NONE, false },
	{ R_X86_64_PC64, "PC64", 8, NEED_NONE, false },
	{ R_X86_64_32, "32", 4, NEED_NONE, false },
	{ R_X86_64_32S, "32S", 4, NEED_NONE, false },
	{ R_X86_64_PLT32, "PLT32", 4, NEED_STUB, false },
	{ R_X86_64_GOTPCREL, "GOTPCREL", 4, NEED_ADDR, false },
	{ R_X86_64_GOTPCRELX, "GOTPCRELX", 4, NEED_ADDR, false },
	{ R_X86_64_REX_GOTPCRELX, "REX_GOTPCRELX", 4, NEED_ADDR, false },
	{ R_X86_64_TPOFF32, "TPOFF32", 4, NEED_NONE, true },
	{ R_X86_64_TPOFF64, "TPOFF64", 8, NEED_NONE, true },
	{ R_X86_64_GOTTPOFF, "GOTTPOFF", 4, NEED_TPOFF, true },
	{ R_X86_64_TLSGD, "TLSGD", 4, NEED_GD, true },
	{ R_X86_64_TLSLD, "TLSLD", 4, NEED_LD, true },
	{ R_X86_64_DTPOFF32, "DTPOFF32", 4, NEED_NONE, true },
	{ R_X86_64_DTPOFF64, "DTPOFF64", 8, NEED_NONE, true },
};

static const struct type *find_type(uint32_t type)
{
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (types[i].type == type)
			return &types[i];
	return NULL;
}

typedef int (*reloc_fn)(struct image *im, unsigned int section, const Elf64_Rela *r,
			const struct type *t);

static int each_reloc(struct image *im, reloc_fn fn)
{
	const struct patchfile *pf = im->pf;
	int err = 0;

	for (unsigned int i = 1; i < pf->nsections && !err; i++) {
		const struct section *s = &pf->sections[i], *to;

		if (s->h.sh_type != SHT_RELA)
			continue;
		to = &pf->sections[s->h.sh_info];
		if (!(to->h.sh_flags & SHF_ALLOC))
			continue;
		for (uint64_t at = 0; at < s->h.sh_size && !err; at += sizeof(Elf64_Rela)) {
			const struct type *t;
			Elf64_Rela r;

			memcpy(&r, s->data + at, sizeof(r));
			t = find_type((uint32_t)ELF64_R_TYPE(r.r_info));
			if (!t)
				return wflp_why(im->why, -EBADMSG,
						"section %s at %#llx: unknown relocation type %u",
						to->name, (unsigned long long)r.r_offset,
						(unsigned int)ELF64_R_TYPE(r.r_info));
			if (ELF64_R_SYM(r.r_info) >= pf->nsymtab || r.r_offset > to->h.sh_size ||
			    t->width > to->h.sh_size - r.r_offset)
				return wflp_why(im->why, -EBADMSG,
						"section %s: a relocation lies outside of it",
						to->name);
			err = fn(im, s->h.sh_info, &r, t);
		}
	}
	return err;
}

static int count_slots(struct image *im, unsigned int section, const Elf64_Rela *r,
		       const struct type *t)
{
	struct slots *s = &im->slots[ELF64_R_SYM(r->r_info)];

	(void)section;
	if ((t->needs == NEED_ADDR || t->needs == NEED_STUB) && !s->addr)
		s->addr = ++im->nslots;
	if (t->needs == NEED_STUB && !s->stub)
		s->stub = ++im->nstubs;
	if (t->needs == NEED_TPOFF && !s->tpoff)
		s->tpoff = ++im->nslots;
	if (t->needs == NEED_GD && !s->gd) {
		s->gd = im->nslots + 1;
		im->nslots += 2;
	}
	if (t->needs == NEED_LD && !im->ld) {
		im->ld = im->nslots + 1;
		im->nslots += 2;
	}
	return 0;
}

/* What a symbol of the running program is, TLS or not. */
static int resolve(struct image *im, size_t i, bool tls, const struct object **of, uint64_t *value)
{
	const struct wflp_patch_sym *y = im->pf->undefined[i];
	const Elf64_Sym *sym = &im->pf->symtab[i];
	const char *name = wflp_patchfile_symbol(im->pf, i);
	bool is_tls = i && y && y->flags & WFLP_PATCH_SYM_TLS;

	*of = NULL;
	if (is_tls != tls)
		return wflp_why(im->why, -EBADMSG, "symbol %s: thread-local here and not there", name);
	if (!i) {
		*value = 0;
	} else if (sym->st_shndx == SHN_ABS) {
		*value = sym->st_value;
	} else if (sym->st_shndx != SHN_UNDEF) {
		if (!(im->pf->sections[sym->st_shndx].h.sh_flags & SHF_ALLOC))
			return wflp_why(im->why, -EBADMSG, "symbol %s lies in a section that is not loaded",
					name);
		*value = im->base + im->offset[sym->st_shndx] + sym->st_value;
	} else if (y->object != WFLP_PATCH_BY_NAME) {
		const struct object *o = &im->objects[y->object];

		if (is_tls ? !o->tls || y->addr > o->tls->p_memsz : !in_segment(o, y->addr, 0, 0))
			return wflp_why(im->why, -EBADMSG, "symbol %s: %#llx is no address of %s", name,
					(unsigned long long)y->addr,
					y->object ? im->pf->str + im->pf->objects[y->object].name_off :
						    "the program");
		*of = o;
		*value = is_tls ? y->addr : o->base + y->addr;
	} else {
		name = im->pf->str + y->name_off;
		*value = dlsym ? (uintptr_t)dlsym(RTLD_DEFAULT, name) : 0;
		if (!*value && ELF64_ST_BIND(sym->st_info) != STB_WEAK)
			return wflp_why(im->why, -ENOENT, "symbol %s is in no loaded library", name);
	}
	return 0;
}

/*
 * Where a thread-local variable of the program is from the thread pointer: the same
 * for all threads, since the program's block is beside it.
 */
static int tpoff(struct image *im, size_t i, uint64_t *value)
{
	const struct object *o;
	int err = resolve(im, i, true, &o, value);

	if (err)
		return err;
	if (o != &im->objects[0] || !o->tls_data)
		return wflp_why(im->why, -EBADMSG,
				"symbol %s: its place from the thread pointer is known for variables of the program only",
				wflp_patchfile_symbol(im->pf, i));
	*value += o->tls_data - (uintptr_t)__builtin_thread_pointer();
	return 0;
}

static void put(struct image *im, uint64_t at, uint64_t value, unsigned int width)
{
	memcpy(im->bytes + at, &value, width);
}

static int fill_slots(struct image *im)
{
	const struct object *o;
	uint64_t v;
	int err;

	for (size_t i = 0; i < im->pf->nsymtab; i++) {
		const struct slots *s = &im->slots[i];

		if (s->addr) {
			err = resolve(im, i, false, &o, &v);
			if (err)
				return err;
			put(im, im->got + 8 * (s->addr - 1ul), v, 8);
		}
		if (s->stub) {	/* jmp *slot(%rip) */
			uint64_t at = im->stubs + STUB_SIZE * (s->stub - 1ul);

			put(im, at, 0x25ff, 2);
			put(im, at + 2, im->got + 8 * (s->addr - 1ul) - (at + 6), 4);
			put(im, at + 6, 0xcccc, 2);
		}
		if (s->tpoff) {
			err = tpoff(im, i, &v);
			if (err)
				return err;
			put(im, im->got + 8 * (s->tpoff - 1ul), v, 8);
		}
		if (s->gd) {
			err = resolve(im, i, true, &o, &v);
			if (err)
				return err;
			put(im, im->got + 8 * (s->gd - 1ul), o->tls_module, 8);
			put(im, im->got + 8 * (s->gd - 1ul) + 8, v, 8);
		}
	}
	return 0;
}

static bool fits(const struct type *t, uint64_t v)
{
	if (t->width != 4)
		return true;
	return t->type == R_X86_64_32 ? v <= UINT32_MAX : (uint64_t)(int64_t)(int32_t)v == v;
}

static int apply_reloc(struct image *im, unsigned int section, const Elf64_Rela *r,
		       const struct type *t)
{
	size_t sym = ELF64_R_SYM(r->r_info);
	const struct slots *s = &im->slots[sym];
	uint64_t at = im->offset[section] + r->r_offset, pc = im->base + at;
	uint64_t got = im->base + im->got, v = 0;
	const struct object *o;
	int err = 0;

	switch (t->type) {
	case R_X86_64_NONE:
		return 0;
	case R_X86_64_GOTPCREL:
	case R_X86_64_GOTPCRELX:
	case R_X86_64_REX_GOTPCRELX:
		v = got + 8 * (s->addr - 1ul) - pc;
		break;
	case R_X86_64_GOTTPOFF:
		v = got + 8 * (s->tpoff - 1ul) - pc;
		break;
	case R_X86_64_TLSGD:
		v = got + 8 * (s->gd - 1ul) - pc;
		break;
	case R_X86_64_TLSLD:
		/* One pair serves all: the module of the program, which is where they are. */
		if (!im->objects[0].tls)
			return wflp_why(im->why, -EBADMSG, "the program has no thread-local data");
		put(im, im->got + 8 * (im->ld - 1ul), im->objects[0].tls_module, 8);
		v = got + 8 * (im->ld - 1ul) - pc;
		break;
	case R_X86_64_DTPOFF32:
	case R_X86_64_DTPOFF64:
		err = resolve(im, sym, true, &o, &v);
		if (!err && o != &im->objects[0])
			err = wflp_why(im->why, -EBADMSG,
				       "symbol %s: DTPOFF of a variable that is not the program's",
				       wflp_patchfile_symbol(im->pf, sym));
		break;
	case R_X86_64_TPOFF32:
	case R_X86_64_TPOFF64:
		err = tpoff(im, sym, &v);
		break;
	case R_X86_64_PLT32:
		err = resolve(im, sym, false, &o, &v);
		v -= pc;
		if (!err && !fits(t, v + (uint64_t)r->r_addend))
			v = im->base + im->stubs + STUB_SIZE * (s->stub - 1ul) - pc;
		break;
	case R_X86_64_PC32:
	case R_X86_64_PC64:
		err = resolve(im, sym, false, &o, &v);
		v -= pc;
		break;
	default:
		err = resolve(im, sym, false, &o, &v);
		break;
	}
	if (err)
		return err;
	v += (uint64_t)r->r_addend;
	if (!fits(t, v))
		return wflp_why(im->why, -ERANGE,
				"section %s at %#llx: symbol %s is too far away for R_X86_64_%s",
				im->pf->sections[section].name, (unsigned long long)r->r_offset,
				wflp_patchfile_symbol(im->pf, sym), t->name);
	put(im, at, v, t->width);
	return 0;
}

/* ---- layout ---- */

static uint64_t up(uint64_t n, uint64_t align)
{
	return (n + align - 1) & ~(align - 1);
}

static void place(struct image *im, uint64_t want, uint64_t *end)
{
	for (unsigned int i = 1; i < im->pf->nsections; i++) {
		const Elf64_Shdr *h = &im->pf->sections[i].h;

		if (!(h->sh_flags & SHF_ALLOC) ||
		    (h->sh_flags & (SHF_WRITE | SHF_EXECINSTR)) != want)
			continue;
		*end = up(*end, h->sh_addralign ? h->sh_addralign : 1);
		im->offset[i] = *end;
		*end += h->sh_size;
	}
}

/* Code and stubs; then what is only read; then what is written. */
static int lay_out(struct image *im)
{
	uint64_t end = 0;

	for (unsigned int i = 1; i < im->pf->nsections; i++)
		if (is_eh_frame(&im->pf->sections[i])) {
			int64_t n = each_fde(im->pf->sections[i].data,
					     im->pf->sections[i].h.sh_size, NULL, NULL);

			if (n < 0)
				return wflp_why(im->why, -EBADMSG,
						"its frame descriptions are damaged");
			im->nunwind += (size_t)n;
		}
	place(im, SHF_EXECINSTR, &end);
	im->stubs = end = up(end, 16);
	im->rx = end = up(end + im->nstubs * STUB_SIZE, PAGE);
	place(im, 0, &end);
	im->got = end = up(end, 8);
	im->table = end += im->nslots * 8ul;
	im->ro = end = up(end + im->nunwind * sizeof(struct unwind_entry), PAGE);
	place(im, SHF_WRITE, &end);
	im->size = up(end, PAGE);
	return 0;
}

static bool reserve_at(struct image *im, uintptr_t addr)
{
	void *p = mmap((void *)addr, im->size, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

	if (p == MAP_FAILED)
		return false;
	if ((uintptr_t)p != addr) {
		munmap(p, im->size);
		return false;
	}
	im->base = addr;
	return true;
}

/*
 * Near the file that has the first of the functions.  First below it, where as a
 * rule there is nothing; then above, from the far end, so that the heap, which
 * grows from the program's end, has room.  Trying needs no /proc, and nobody can
 * come in between.
 */
static int reserve(struct image *im)
{
	const struct object *o = &im->objects[im->pf->funcs[0].object];
	const uint64_t step = 1ul << 19, low = 1ul << 20, heap = 1ul << 29;
	uintptr_t at;

	for (at = o->lo & ~(step - 1);
	     at > low + im->size && o->hi - (at - im->size) < REACH; at -= step)
		if (reserve_at(im, (at - im->size) & ~(PAGE - 1)))
			return 0;
	for (at = (o->lo + REACH - im->size) & ~(step - 1);
	     at > o->hi + heap; at -= step)
		if (reserve_at(im, at))
			return 0;
	return wflp_why(im->why, -ENOMEM, "there is no room for it within 2 GiB of the code it replaces");
}

static int write_code(struct image *im)
{
	const int seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
	int fd, err;
	void *p;

	fd = (int)syscall(SYS_memfd_create, "wflp-patch",
			  MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
	/* Before Linux 6.3, which does not know of the last one. */
	if (fd < 0 && errno == EINVAL)
		fd = (int)syscall(SYS_memfd_create, "wflp-patch", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return wflp_why(im->why, -errno, "memfd_create: %s", strerrordesc_np(errno));
	for (uint64_t done = 0; done < im->rx; ) {
		ssize_t n = pwrite(fd, im->bytes + done, im->rx - done, (off_t)done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			err = n ? -errno : -EIO;
			close(fd);
			return wflp_why(im->why, err, "write the code: %s", strerrordesc_np(-err));
		}
		done += (uint64_t)n;
	}
	err = fcntl(fd, F_ADD_SEALS, seals) ? -errno : 0;
	p = err ? MAP_FAILED : mmap((void *)im->base, im->rx, PROT_READ | PROT_EXEC,
				    MAP_PRIVATE | MAP_FIXED, fd, 0);
	if (!err && p == MAP_FAILED)
		err = -errno;
	close(fd);
	return err ? wflp_why(im->why, err, "map the code: %s", strerrordesc_np(-err)) : 0;
}

static int write_data(struct image *im, uint64_t from, uint64_t to, bool writable)
{
	uint8_t *at = (uint8_t *)im->base + from;

	if (from == to)
		return 0;
	if (mmap(at, to - from, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		 -1, 0) == MAP_FAILED)
		return wflp_why(im->why, -errno, "map the data: %s", strerrordesc_np(errno));
	memcpy(at, im->bytes + from, to - from);
	if (!writable && mprotect(at, to - from, PROT_READ))
		return wflp_why(im->why, -errno, "protect the data: %s", strerrordesc_np(errno));
	return 0;
}

static int fill(struct image *im)
{
	int err;

	im->bytes = calloc(1, im->size);
	if (!im->bytes)
		return wflp_why(im->why, -ENOMEM, "no memory");
	for (unsigned int i = 1; i < im->pf->nsections; i++) {
		const struct section *s = &im->pf->sections[i];

		if (s->h.sh_flags & SHF_ALLOC && s->data && s->h.sh_size)
			memcpy(im->bytes + im->offset[i], s->data, s->h.sh_size);
	}
	err = fill_slots(im);
	if (!err)
		err = each_reloc(im, apply_reloc);
	if (!err && im->nunwind)
		err = make_table(im);
	if (!err)
		err = write_code(im);
	if (!err)
		err = write_data(im, im->rx, im->ro, false);
	if (!err)
		err = write_data(im, im->ro, im->size, true);
	return err;
}

/* ---- what it replaces ---- */

static int by_target(const void *a, const void *b)
{
	const struct target *x = a, *y = b;

	return x->addr < y->addr ? -1 : x->addr > y->addr;
}

static int find_targets(struct image *im, struct wflp_patch *p)
{
	const struct patchfile *pf = im->pf;
	size_t names = 0, at = 0;

	for (uint32_t i = 0; i < pf->head.function_count; i++)
		names += strlen(pf->str + pf->funcs[i].name_off) + 1;
	p->targets = calloc(pf->head.function_count, sizeof(*p->targets));
	p->names = malloc(names);
	p->name = strdup(pf->str + pf->head.name_off);
	if (!p->targets || !p->names || !p->name)
		return wflp_why(im->why, -ENOMEM, "no memory");
	for (uint32_t i = 0; i < pf->head.function_count; i++) {
		const struct wflp_patch_func *f = &pf->funcs[i];
		const struct object *o = &im->objects[f->object];
		struct target *t = &p->targets[p->ntargets++];
		const char *name = pf->str + f->name_off;

		if (!in_segment(o, f->old_addr, f->old_size, PF_X))
			return wflp_why(im->why, -EBADMSG, "function %s: %#llx is no code", name,
					(unsigned long long)f->old_addr);
		*t = (struct target){
			.addr = o->base + f->old_addr,
			.size = f->old_size,
			.anytime = f->flags & WFLP_PATCH_FUNC_ANYTIME,
			.name = strcpy(p->names + at, name),
		};
		at += strlen(name) + 1;
		memcpy(t->sha256, f->old_sha256, sizeof(t->sha256));
		if (f->flags & WFLP_PATCH_FUNC_PART)
			continue;
		t->new_addr = im->base + im->offset[pf->symtab[f->new_symbol].st_shndx] +
			      pf->symtab[f->new_symbol].st_value;
		t->new_size = pf->symtab[f->new_symbol].st_size;
	}
	qsort(p->targets, p->ntargets, sizeof(*p->targets), by_target);
	for (size_t i = 1; i < p->ntargets; i++)
		if (p->targets[i].addr - p->targets[i - 1].addr < p->targets[i - 1].size)
			return wflp_why(im->why, -EBADMSG, "functions %s and %s overlap",
					p->targets[i - 1].name, p->targets[i].name);
	return 0;
}

static int make(struct image *im, struct wflp_patch *p)
{
	int err = find_objects(im);

	if (!err)
		err = each_reloc(im, count_slots);
	if (!err)
		err = lay_out(im);
	if (!err)
		err = reserve(im);
	if (!err) {
		p->map = (uint8_t *)im->base;
		p->map_size = im->size;
		p->code = im->base;
		p->code_end = im->base + im->rx;
		p->unwind = (const void *)(im->base + im->table);
		p->nunwind = im->nunwind;
		err = find_targets(im, p);
	}
	if (!err)
		err = fill(im);
	return err;
}

int wflp_patch_map(struct wflp_patch *p, const struct patchfile *pf, const struct why *why)
{
	struct image im = {
		.pf = pf,
		.why = why,
		.objects = calloc(pf->head.object_count, sizeof(*im.objects)),
		.offset = calloc(pf->nsections, sizeof(*im.offset)),
		.slots = calloc(pf->nsymtab, sizeof(*im.slots)),
	};
	int err;

	if (im.objects && im.offset && im.slots)
		err = make(&im, p);
	else
		err = wflp_why(why, -ENOMEM, "no memory");
	free(im.objects);
	free(im.offset);
	free(im.slots);
	free(im.bytes);
	if (err)
		wflp_patch_unmap(p);
	return err;
}

void wflp_patch_unmap(struct wflp_patch *p)
{
	if (p->map)
		munmap(p->map, p->map_size);
	free(p->targets);
	free(p->names);
	free(p->name);
	p->map = NULL;
	p->targets = NULL;
	p->names = NULL;
	p->name = NULL;
}
