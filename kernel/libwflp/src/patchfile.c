/* SPDX-License-Identifier: MIT */
/*
 * Reading a patch file.  It is input: no offset, count or index in it is used
 * before it was compared with what there is, sums of them are checked for
 * overflow, and what this loader does not know is refused rather than skipped.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load.h"

/* Far above what a patch needs, far below what makes sums overflow. */
#define FILE_MAX	(64u << 20)
#define MEMORY_MAX	(256u << 20)
#define ALIGN_MAX	4096u

int wflp_why(const struct why *why, int err, const char *fmt, ...)
{
	va_list ap;

	if (why->room) {
		va_start(ap, fmt);
		vsnprintf(why->text, why->room, fmt, ap);
		va_end(ap);
	}
	return err;
}

static bool inside(uint64_t off, uint64_t len, uint64_t size)
{
	return off <= size && len <= size - off;
}

/* The string at off of a table that ends with a NUL. */
static const char *string_at(const struct section *s, uint64_t off)
{
	return off < s->h.sh_size ? (const char *)s->data + off : NULL;
}

static bool is_strings(const struct section *s)
{
	return s->data && s->h.sh_size && !s->data[s->h.sh_size - 1];
}

static int read_header(struct patchfile *pf, Elf64_Ehdr *e, const struct why *why)
{
	if (pf->size < sizeof(*e) || memcmp(pf->file, ELFMAG, SELFMAG))
		return wflp_why(why, -EBADMSG, "not an ELF file");
	memcpy(e, pf->file, sizeof(*e));
	if (e->e_ident[EI_CLASS] != ELFCLASS64 || e->e_ident[EI_DATA] != ELFDATA2LSB ||
	    e->e_machine != EM_X86_64 || e->e_type != ET_REL || e->e_version != EV_CURRENT)
		return wflp_why(why, -EBADMSG, "not a relocatable object for x86-64");
	if (e->e_shentsize != sizeof(Elf64_Shdr) || e->e_shnum < 2 ||
	    e->e_shnum >= SHN_LORESERVE || e->e_shstrndx >= e->e_shnum ||
	    !inside(e->e_shoff, e->e_shnum * sizeof(Elf64_Shdr), pf->size))
		return wflp_why(why, -EBADMSG, "the table of sections is damaged");
	return 0;
}

static int read_sections(struct patchfile *pf, const Elf64_Ehdr *e, const struct why *why)
{
	const struct section *names;

	pf->nsections = e->e_shnum;
	pf->sections = calloc(pf->nsections, sizeof(*pf->sections));
	if (!pf->sections)
		return wflp_why(why, -ENOMEM, "no memory");
	for (unsigned int i = 0; i < pf->nsections; i++) {
		struct section *s = &pf->sections[i];

		memcpy(&s->h, pf->file + e->e_shoff + i * sizeof(s->h), sizeof(s->h));
		s->name = "";
		if (s->h.sh_type == SHT_NULL || s->h.sh_type == SHT_NOBITS)
			continue;
		if (!inside(s->h.sh_offset, s->h.sh_size, pf->size))
			return wflp_why(why, -EBADMSG, "section %u lies outside of the file", i);
		s->data = pf->file + s->h.sh_offset;
	}
	names = &pf->sections[e->e_shstrndx];
	if (!is_strings(names))
		return wflp_why(why, -EBADMSG, "the names of the sections are damaged");
	for (unsigned int i = 1; i < pf->nsections; i++) {
		pf->sections[i].name = string_at(names, pf->sections[i].h.sh_name);
		if (!pf->sections[i].name)
			return wflp_why(why, -EBADMSG, "section %u has no name", i);
	}
	return 0;
}

static int check_loaded(const struct section *s, uint64_t *memory, const struct why *why)
{
	uint64_t align = s->h.sh_addralign ? s->h.sh_addralign : 1;
	const uint64_t known = SHF_WRITE | SHF_ALLOC | SHF_EXECINSTR | SHF_MERGE | SHF_STRINGS |
			       SHF_INFO_LINK | SHF_GROUP;

	switch (s->h.sh_type) {
	case SHT_PROGBITS:
	case SHT_NOBITS:
	case SHT_NOTE:
	case SHT_X86_64_UNWIND:
		break;
	case SHT_INIT_ARRAY:
	case SHT_FINI_ARRAY:
	case SHT_PREINIT_ARRAY:
		return wflp_why(why, -EBADMSG,
				"section %s: a patch cannot run constructors or destructors",
				s->name);
	default:
		return wflp_why(why, -EBADMSG, "section %s has the unknown type %u", s->name,
				s->h.sh_type);
	}
	if (s->h.sh_flags & SHF_TLS)
		return wflp_why(why, -EBADMSG,
				"section %s: a patch cannot bring thread-local data along", s->name);
	if (s->h.sh_flags & ~known)
		return wflp_why(why, -EBADMSG, "section %s has unknown flags %#llx", s->name,
				(unsigned long long)s->h.sh_flags);
	if ((s->h.sh_flags & (SHF_WRITE | SHF_EXECINSTR)) == (SHF_WRITE | SHF_EXECINSTR))
		return wflp_why(why, -EBADMSG, "section %s is writable and executable", s->name);
	if (s->h.sh_flags & SHF_EXECINSTR && s->h.sh_type != SHT_PROGBITS)
		return wflp_why(why, -EBADMSG, "section %s has no code in it", s->name);
	if (align & (align - 1) || align > ALIGN_MAX)
		return wflp_why(why, -EBADMSG, "section %s has the alignment %llu", s->name,
				(unsigned long long)align);
	if (s->h.sh_size > MEMORY_MAX)
		return wflp_why(why, -EBADMSG, "section %s is too large", s->name);
	*memory += s->h.sh_size + align;
	if (*memory > MEMORY_MAX)
		return wflp_why(why, -EBADMSG, "it takes too much memory");
	return 0;
}

/* The one section of that name. */
static int find(const struct patchfile *pf, const char *name, bool needed,
		const struct section **out, const struct why *why)
{
	*out = NULL;
	for (unsigned int i = 1; i < pf->nsections; i++) {
		const struct section *s = &pf->sections[i];

		if (strcmp(s->name, name))
			continue;
		if (*out)
			return wflp_why(why, -EBADMSG, "section %s is there twice", name);
		if (!s->data || s->h.sh_flags & SHF_ALLOC)
			return wflp_why(why, -EBADMSG, "section %s is of the wrong kind", name);
		*out = s;
	}
	if (!*out && needed)
		return wflp_why(why, -EBADMSG, "not a patch: it has no section %s", name);
	return 0;
}

static int read_array(const struct patchfile *pf, const char *name, uint64_t count, size_t each,
		      void **out, const struct why *why)
{
	const struct section *s;
	int err = find(pf, name, count, &s, why);

	if (err || (!s && !count))
		return err;
	if (s->h.sh_size != count * each)
		return wflp_why(why, -EBADMSG, "section %s has another size than the head says",
				name);
	*out = malloc(s->h.sh_size ? s->h.sh_size : 1);
	if (!*out)
		return wflp_why(why, -ENOMEM, "no memory");
	memcpy(*out, s->data, s->h.sh_size);
	return 0;
}

void wflp_patchfile_id(const uint8_t *file, size_t size, size_t id_at, uint8_t id[32])
{
	static const uint8_t none[32];
	struct wflp_sha256 sum;

	wflp_sha256_begin(&sum);
	wflp_sha256_add(&sum, file, id_at);
	wflp_sha256_add(&sum, none, sizeof(none));
	wflp_sha256_add(&sum, file + id_at + sizeof(none), size - id_at - sizeof(none));
	wflp_sha256_end(&sum, id);
}

static int read_head(struct patchfile *pf, const struct why *why)
{
	struct wflp_patch_head *head = &pf->head;
	const struct section *s;
	uint8_t id[32];
	int err = find(pf, WFLP_PATCH_HEAD, true, &s, why);

	if (err)
		return err;
	if (s->h.sh_size < offsetof(struct wflp_patch_head, object_count) ||
	    memcmp(s->data, WFLP_PATCH_MAGIC, sizeof(head->magic)))
		return wflp_why(why, -EBADMSG, "not a patch: its head is damaged");
	memcpy(head, s->data, offsetof(struct wflp_patch_head, object_count));
	if (head->version != WFLP_PATCH_VERSION)
		return wflp_why(why, -EBADMSG, "it has version %u of the format, and %u is known",
				head->version, WFLP_PATCH_VERSION);
	if (s->h.sh_size != sizeof(*head) || head->head_size != sizeof(*head))
		return wflp_why(why, -EBADMSG, "its head has %u bytes instead of %zu",
				head->head_size, sizeof(*head));
	memcpy(head, s->data, sizeof(*head));
	if (head->flags || head->pad)
		return wflp_why(why, -EBADMSG, "its head has unknown flags %#x", head->flags);
	wflp_patchfile_id(pf->file, pf->size,
			  (size_t)(s->data - pf->file) + offsetof(struct wflp_patch_head, id), id);
	if (memcmp(id, head->id, sizeof(id)))
		return wflp_why(why, -EBADMSG, "its content does not fit its digest: it is damaged");
	return 0;
}

static int read_symbols(struct patchfile *pf, const struct why *why)
{
	const struct section *table = NULL, *names;

	for (unsigned int i = 1; i < pf->nsections; i++) {
		if (pf->sections[i].h.sh_type == SHT_SYMTAB_SHNDX)
			return wflp_why(why, -EBADMSG, "it has too many sections");
		if (pf->sections[i].h.sh_type != SHT_SYMTAB)
			continue;
		if (table)
			return wflp_why(why, -EBADMSG, "it has two symbol tables");
		table = &pf->sections[i];
	}
	if (!table || table->h.sh_entsize != sizeof(Elf64_Sym) ||
	    table->h.sh_size % sizeof(Elf64_Sym) || table->h.sh_size < sizeof(Elf64_Sym) ||
	    table->h.sh_link >= pf->nsections)
		return wflp_why(why, -EBADMSG, "its symbol table is missing or damaged");
	names = &pf->sections[table->h.sh_link];
	if (names->h.sh_type != SHT_STRTAB || !is_strings(names))
		return wflp_why(why, -EBADMSG, "the names of its symbols are damaged");
	pf->nsymtab = table->h.sh_size / sizeof(Elf64_Sym);
	pf->symtab = malloc(table->h.sh_size);
	pf->undefined = calloc(pf->nsymtab, sizeof(*pf->undefined));
	if (!pf->symtab || !pf->undefined)
		return wflp_why(why, -ENOMEM, "no memory");
	memcpy(pf->symtab, table->data, table->h.sh_size);
	pf->symstr = (const char *)names->data;
	for (size_t i = 0; i < pf->nsymtab; i++) {
		const Elf64_Sym *y = &pf->symtab[i];
		const char *name = string_at(names, y->st_name);

		if (!name)
			return wflp_why(why, -EBADMSG, "symbol %zu has no name", i);
		if (ELF64_ST_TYPE(y->st_info) == STT_GNU_IFUNC)
			return wflp_why(why, -EBADMSG, "symbol %s is resolved at run time (ifunc)",
					name);
		if (y->st_shndx == SHN_UNDEF || y->st_shndx == SHN_ABS)
			continue;
		if (y->st_shndx >= pf->nsections)
			return wflp_why(why, -EBADMSG, "symbol %s lies in no section (%#x)", name,
					y->st_shndx);
		if (y->st_value > pf->sections[y->st_shndx].h.sh_size ||
		    y->st_size > pf->sections[y->st_shndx].h.sh_size - y->st_value)
			return wflp_why(why, -EBADMSG, "symbol %s lies outside of its section",
					name);
	}
	return 0;
}

const char *wflp_patchfile_symbol(const struct patchfile *pf, size_t i)
{
	const Elf64_Sym *y = &pf->symtab[i];

	if (ELF64_ST_TYPE(y->st_info) == STT_SECTION && y->st_shndx < pf->nsections)
		return pf->sections[y->st_shndx].name;
	return pf->symstr + y->st_name;
}

static int check_objects(const struct patchfile *pf, uint64_t str_size, const struct why *why)
{
	for (uint32_t i = 0; i < pf->head.object_count; i++) {
		const struct wflp_patch_object *o = &pf->objects[i];

		if (o->name_off >= str_size || !pf->str[o->name_off] != !i)
			return wflp_why(why, -EBADMSG, "object %u has a wrong name", i);
		if (!o->build_id_size || o->build_id_size > sizeof(o->build_id))
			return wflp_why(why, -EBADMSG, "object %u has a build id of %u bytes", i,
					o->build_id_size);
	}
	return 0;
}

static int check_funcs(const struct patchfile *pf, uint64_t str_size, const struct why *why)
{
	for (uint32_t i = 0; i < pf->head.function_count; i++) {
		const struct wflp_patch_func *f = &pf->funcs[i];
		const Elf64_Sym *y;

		if (f->name_off >= str_size)
			return wflp_why(why, -EBADMSG, "function %u has no name", i);
		if (f->object >= pf->head.object_count || !f->old_size || f->old_size > MEMORY_MAX ||
		    f->flags & ~(WFLP_PATCH_FUNC_ANYTIME | WFLP_PATCH_FUNC_PART))
			return wflp_why(why, -EBADMSG, "what it says of function %s is damaged",
					pf->str + f->name_off);
		if (f->flags & WFLP_PATCH_FUNC_PART) {
			if (f->new_symbol)
				return wflp_why(why, -EBADMSG,
						"%s is part of a function and has a new symbol",
						pf->str + f->name_off);
			continue;
		}
		if (!f->new_symbol || f->new_symbol >= pf->nsymtab)
			return wflp_why(why, -EBADMSG, "function %s has no new symbol",
					pf->str + f->name_off);
		y = &pf->symtab[f->new_symbol];
		if (ELF64_ST_TYPE(y->st_info) != STT_FUNC || y->st_shndx == SHN_UNDEF ||
		    y->st_shndx >= pf->nsections || !y->st_size ||
		    (pf->sections[y->st_shndx].h.sh_flags & (SHF_ALLOC | SHF_EXECINSTR)) !=
		    (SHF_ALLOC | SHF_EXECINSTR))
			return wflp_why(why, -EBADMSG, "the new %s is not a function of the patch",
					pf->str + f->name_off);
	}
	return 0;
}

static int check_syms(struct patchfile *pf, uint64_t str_size, const struct why *why)
{
	for (uint32_t i = 0; i < pf->head.symbol_count; i++) {
		const struct wflp_patch_sym *y = &pf->syms[i];
		bool by_name = y->object == WFLP_PATCH_BY_NAME;

		if (!y->symbol || y->symbol >= pf->nsymtab || y->name_off >= str_size)
			return wflp_why(why, -EBADMSG, "reference %u is to no symbol", i);
		if (pf->symtab[y->symbol].st_shndx != SHN_UNDEF || pf->undefined[y->symbol])
			return wflp_why(why, -EBADMSG, "symbol %s is there twice",
					wflp_patchfile_symbol(pf, y->symbol));
		if ((!by_name && y->object >= pf->head.object_count) ||
		    y->flags & ~WFLP_PATCH_SYM_TLS ||
		    (by_name && (y->addr || y->flags || !pf->str[y->name_off])))
			return wflp_why(why, -EBADMSG, "what it says of symbol %s is damaged",
					wflp_patchfile_symbol(pf, y->symbol));
		pf->undefined[y->symbol] = y;
	}
	for (size_t i = 1; i < pf->nsymtab; i++)
		if (pf->symtab[i].st_shndx == SHN_UNDEF && !pf->undefined[i])
			return wflp_why(why, -EBADMSG,
					"it does not say what the undefined symbol %s is",
					wflp_patchfile_symbol(pf, i));
	return 0;
}

/* Relocations of what is not loaded (debug information) are nobody's. */
static int check_relocations(const struct patchfile *pf, const struct why *why)
{
	for (unsigned int i = 1; i < pf->nsections; i++) {
		const struct section *s = &pf->sections[i];

		if (s->h.sh_type != SHT_RELA && s->h.sh_type != SHT_REL)
			continue;
		if (!s->h.sh_info || s->h.sh_info >= pf->nsections)
			return wflp_why(why, -EBADMSG, "section %s belongs to no section", s->name);
		if (!(pf->sections[s->h.sh_info].h.sh_flags & SHF_ALLOC))
			continue;
		if (s->h.sh_type == SHT_REL || s->h.sh_entsize != sizeof(Elf64_Rela) ||
		    s->h.sh_size % sizeof(Elf64_Rela))
			return wflp_why(why, -EBADMSG, "section %s is damaged", s->name);
		if (s->h.sh_size && !pf->sections[s->h.sh_info].data)
			return wflp_why(why, -EBADMSG, "section %s relocates zeros", s->name);
	}
	return 0;
}

static int read_all(struct patchfile *pf, const struct why *why)
{
	const struct section *str;
	uint64_t memory = 0;
	Elf64_Ehdr e = { 0 };
	int err;

	err = read_header(pf, &e, why);
	if (!err)
		err = read_sections(pf, &e, why);
	if (!err)
		err = read_head(pf, why);
	for (unsigned int i = 1; i < pf->nsections && !err; i++)
		if (pf->sections[i].h.sh_flags & SHF_ALLOC)
			err = check_loaded(&pf->sections[i], &memory, why);
	if (!err)
		err = find(pf, WFLP_PATCH_STR, true, &str, why);
	if (err)
		return err;
	if (!is_strings(str) || str->data[0] || pf->head.name_off >= str->h.sh_size)
		return wflp_why(why, -EBADMSG, "section %s is damaged", WFLP_PATCH_STR);
	pf->str = (const char *)str->data;
	if (!pf->head.object_count || !pf->head.function_count)
		return wflp_why(why, -EBADMSG, "it replaces nothing");
	err = read_array(pf, WFLP_PATCH_OBJECTS, pf->head.object_count, sizeof(*pf->objects),
			 (void **)&pf->objects, why);
	if (!err)
		err = read_array(pf, WFLP_PATCH_FUNCS, pf->head.function_count,
				 sizeof(*pf->funcs), (void **)&pf->funcs, why);
	if (!err)
		err = read_array(pf, WFLP_PATCH_SYMS, pf->head.symbol_count, sizeof(*pf->syms),
				 (void **)&pf->syms, why);
	if (!err)
		err = read_symbols(pf, why);
	if (!err)
		err = check_objects(pf, str->h.sh_size, why);
	if (!err)
		err = check_funcs(pf, str->h.sh_size, why);
	if (!err)
		err = check_syms(pf, str->h.sh_size, why);
	if (!err)
		err = check_relocations(pf, why);
	return err;
}

int wflp_patchfile_read(struct patchfile *pf, const void *file, size_t size, const struct why *why)
{
	int err;

	memset(pf, 0, sizeof(*pf));
	if (size > FILE_MAX)
		return wflp_why(why, -EBADMSG, "it is larger than %u MiB", FILE_MAX >> 20);
	pf->file = malloc(size ? size : 1);
	if (!pf->file)
		return wflp_why(why, -ENOMEM, "no memory");
	if (size)
		memcpy(pf->file, file, size);
	pf->size = size;
	err = read_all(pf, why);
	if (err)
		wflp_patchfile_free(pf);
	return err;
}

void wflp_patchfile_free(struct patchfile *pf)
{
	free(pf->file);
	free(pf->sections);
	free(pf->objects);
	free(pf->funcs);
	free(pf->syms);
	free(pf->symtab);
	free(pf->undefined);
	memset(pf, 0, sizeof(*pf));
}
