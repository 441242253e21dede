/* SPDX-License-Identifier: MIT */
/*
 * Call sites: where a program's description says that blocking calls are safe points
 * (its event loop), so that no request sees two versions of the code.  A list, with
 * commas between:
 *	NAME			a function of the program, with what the compiler has
 *				made of it apart: NAME.part.0 and the like
 *	FILE:NAME		a function of a library, by its SONAME or file name
 *	FILE			anything in that library
 *	FILE+0xLO-0xHI		addresses in it, as its program headers count them;
 *				FILE is empty for the program
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "preload.h"

#define SITES_MAX 64

static struct wflp_range sites[SITES_MAX];
static size_t nsites;

bool site_allowed(uintptr_t caller)
{
	for (size_t i = 0; i < nsites; i++)
		/* What follows the call may be just behind the function. */
		if (caller > sites[i].lo && caller <= sites[i].hi)
			return true;
	return !nsites;
}

struct file {
	const char *name;	/* "": the program */
	bool first, found;
	char path[512];
	uintptr_t base, lo, hi;
};

static int look(struct dl_phdr_info *info, size_t size, void *arg)
{
	const char *base = strrchr(info->dlpi_name, '/');
	struct file *f = arg;
	bool match = *f->name ? !strcmp(base ? base + 1 : info->dlpi_name, f->name) : f->first;

	(void)size;
	f->first = false;
	if (!match)
		return 0;
	f->found = true;
	f->base = info->dlpi_addr;
	f->lo = UINTPTR_MAX;
	snprintf(f->path, sizeof(f->path), "%s", *f->name ? info->dlpi_name : "/proc/self/exe");
	for (size_t i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];

		if (ph->p_type != PT_LOAD || !(ph->p_flags & PF_X))
			continue;
		if (f->base + ph->p_vaddr < f->lo)
			f->lo = f->base + ph->p_vaddr;
		if (f->base + ph->p_vaddr + ph->p_memsz > f->hi)
			f->hi = f->base + ph->p_vaddr + ph->p_memsz;
	}
	return 1;
}

static bool add_range(uintptr_t lo, uintptr_t hi)
{
	for (size_t i = 0; i < nsites; i++)
		if (sites[i].lo == lo && sites[i].hi == hi)
			return true;
	if (lo >= hi || nsites == SITES_MAX)
		return false;
	sites[nsites++] = (struct wflp_range){ lo, hi };
	return true;
}

/* The function, or a part of it. */
static bool is_named(const char *is, const char *name, size_t room)
{
	size_t n = strlen(name);

	return n < room && !strncmp(is, name, n) && (!is[n] || is[n] == '.');
}

/* All functions of that name in a table, which may be several static ones. */
static bool add_symbols(const uint8_t *map, size_t size, const Elf64_Shdr *table,
			const Elf64_Shdr *names, const struct file *f, const char *name)
{
	bool found = false;

	if (table->sh_offset > size || table->sh_size > size - table->sh_offset ||
	    names->sh_offset > size || names->sh_size > size - names->sh_offset)
		return false;
	for (size_t i = 0; i + sizeof(Elf64_Sym) <= table->sh_size; i += sizeof(Elf64_Sym)) {
		const char *is;
		Elf64_Sym y;

		memcpy(&y, map + table->sh_offset + i, sizeof(y));
		if (ELF64_ST_TYPE(y.st_info) != STT_FUNC || !y.st_value || y.st_name >= names->sh_size)
			continue;
		is = (const char *)map + names->sh_offset + y.st_name;
		if (is_named(is, name, names->sh_size - y.st_name))
			found |= add_range(f->base + y.st_value, f->base + y.st_value + y.st_size);
	}
	return found;
}

static bool add_from_file(const uint8_t *map, size_t size, const struct file *f, const char *name)
{
	Elf64_Ehdr e;
	bool found = false;

	if (size < sizeof(e))
		return false;
	memcpy(&e, map, sizeof(e));
	if (memcmp(e.e_ident, ELFMAG, SELFMAG) || e.e_shentsize != sizeof(Elf64_Shdr) ||
	    e.e_shoff > size || e.e_shnum * sizeof(Elf64_Shdr) > size - e.e_shoff)
		return false;
	/* What a program exports is in one table, and its static functions in the other. */
	for (unsigned int i = 0; i < e.e_shnum; i++) {
		Elf64_Shdr table, names;

		memcpy(&table, map + e.e_shoff + i * sizeof(table), sizeof(table));
		if ((table.sh_type != SHT_SYMTAB && table.sh_type != SHT_DYNSYM) ||
		    table.sh_link >= e.e_shnum)
			continue;
		memcpy(&names, map + e.e_shoff + table.sh_link * sizeof(names), sizeof(names));
		found |= add_symbols(map, size, &table, &names, f, name);
	}
	return found;
}

static bool add_function(const struct file *f, const char *name)
{
	int fd = open(f->path, O_RDONLY | O_CLOEXEC);
	bool found = false;
	struct stat st;

	if (fd < 0)
		return false;
	if (!fstat(fd, &st) && st.st_size > 0) {
		void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);

		if (map != MAP_FAILED) {
			found = add_from_file(map, (size_t)st.st_size, f, name);
			munmap(map, (size_t)st.st_size);
		}
	}
	close(fd);
	return found;
}

static bool add_site(char *site)
{
	struct file f = { .name = "", .first = true };
	char *colon = strchr(site, ':'), *plus = strstr(site, "+0x"), *end;
	const char *function = NULL;
	uintptr_t lo, hi;

	if (plus) {
		*plus = '\0';
		f.name = site;
	} else if (colon) {
		*colon = '\0';
		f.name = site;
		function = colon + 1;
	} else if (strstr(site, ".so")) {
		f.name = site;
	} else {
		function = site;
	}
	dl_iterate_phdr(look, &f);
	if (!f.found)
		return false;
	if (function)
		return *function && add_function(&f, function);
	lo = f.lo;
	hi = f.hi;
	if (plus) {
		lo = f.base + strtoull(plus + 1, &end, 16);
		if (*end != '-')
			return false;
		hi = f.base + strtoull(end + 1, &end, 16);
		if (*end)
			return false;
	}
	return add_range(lo, hi);
}

bool sites_init(const char *list, char *what, size_t room)
{
	char *copy = strdup(list), *save = NULL;
	bool good = copy;

	if (!good)
		snprintf(what, room, "no memory");
	for (char *s = copy ? strtok_r(copy, ", \t\n", &save) : NULL; s && good;
	     s = strtok_r(NULL, ", \t\n", &save)) {
		char *site = strdup(s);

		good = site && add_site(site);
		if (!good)
			snprintf(what, room, "WFLP_SITES: there is no %s", s);
		free(site);
	}
	free(copy);
	return good;
}
