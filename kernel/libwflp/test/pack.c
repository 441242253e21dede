/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include <elf.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "load.h"
#include "pack.h"

int counter;

int helper(void)
{
	return __atomic_load_n(&counter, __ATOMIC_RELAXED);
}

/* In a page of its own, so that its size is known: it returns 1. */
__asm__(".pushsection .text.subject,\"ax\",@progbits\n"
	".balign 64\n"
	".globl subject\n.type subject,@function\n"
	"subject: .cfi_startproc\n"
	"mov $1, %eax\n"
	".rept 10\nnop\n.endr\n"
	"ret\n"
	".cfi_endproc\n"
	/* The rest of it: a call, so that a thread can be in the middle. */
	".globl subject_around\n"
	"subject_around: .cfi_startproc\n"
	"sub $8, %rsp\n.cfi_adjust_cfa_offset 8\n"
	"call *%rdi\n"
	"add $8, %rsp\n.cfi_adjust_cfa_offset -8\n"
	"ret\n"
	".cfi_endproc\n"
	"subject_end: .size subject, .-subject\n"
	".popsection\n");
extern char subject_end[];

uint32_t subject_size(void)
{
	return (uint32_t)(subject_end - (char *)subject);
}

/* sub $8,%rsp; call helper; mov counter@GOTPCREL(%rip),%rax; lock incl (%rax);
 * mov value(%rip),%eax; add $8,%rsp; ret */
static const uint8_t code[] = {
	0x48, 0x83, 0xec, 0x08, 0xe8, 0, 0, 0, 0, 0x48, 0x8b, 0x05, 0, 0, 0, 0,
	0xf0, 0xff, 0x00, 0x8b, 0x05, 0, 0, 0, 0, 0x48, 0x83, 0xc4, 0x08, 0xc3,
};

/* A CIE as gas makes it, and one FDE for the code. */
static const uint8_t frames[] = {
	0x14, 0, 0, 0, 0, 0, 0, 0, 1, 'z', 'R', 0, 1, 0x78, 0x10, 1, 0x1b, 0x0c, 7, 8, 0x90, 1, 0, 0,
	0x14, 0, 0, 0, 0x1c, 0, 0, 0, 0, 0, 0, 0, sizeof(code), 0, 0, 0, 0,
	0x44, 0x0e, 0x10, 0x59, 0x0e, 8, 0,
};

enum { S_NULL, S_TEXT, S_RODATA, S_FRAMES, S_RTEXT, S_RFRAMES, S_SYMTAB, S_STRTAB, S_HEAD,
       S_OBJECTS, S_FUNCS, S_SYMS, S_STR, S_N };
static const char names[] = "\0.text.subject\0.rodata\0.eh_frame\0.rela.text.subject\0"
	".rela.eh_frame\0.symtab\0.strtab\0" WFLP_PATCH_HEAD "\0" WFLP_PATCH_OBJECTS "\0"
	WFLP_PATCH_FUNCS "\0" WFLP_PATCH_SYMS "\0" WFLP_PATCH_STR;
static const char symbols[] = "\0subject\0helper\0counter\0value";

struct base {
	uintptr_t addr;
	struct wflp_patch_object object;
};

static int find_base(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct base *b = arg;

	(void)size;
	b->addr = info->dlpi_addr;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
		const uint8_t *p = (void *)(b->addr + ph->p_vaddr), *end = p + ph->p_memsz;

		while (ph->p_type == PT_NOTE && p + 12 < end) {
			const ElfW(Nhdr) *n = (const void *)p;
			const uint8_t *desc = p + 12 + ((n->n_namesz + 3) & ~3u);

			if (n->n_type == NT_GNU_BUILD_ID && !memcmp(p + 12, "GNU", 4)) {
				b->object.build_id_size = n->n_descsz;
				memcpy(b->object.build_id, desc, n->n_descsz);
			}
			p = desc + ((n->n_descsz + 3) & ~3u);
		}
	}
	return 1;
}

static void add(uint8_t *file, size_t *at, Elf64_Shdr *h, const void *data, size_t size)
{
	*at = (*at + 15) & ~15ul;
	memcpy(file + *at, data, size);
	h->sh_offset = *at;
	h->sh_size = size;
	*at += size;
}

uint8_t *pack(const char *name, int value, size_t *size)
{
	uint8_t *file = calloc(1, 8192);
	Elf64_Shdr h[S_N] = { 0 };
	struct base b = { 0 };
	size_t at = sizeof(Elf64_Ehdr);
	const char *n = names;
	char str[64] = "\0subject";
	struct wflp_sha256 sum;

	need(file, "memory");
	dl_iterate_phdr(find_base, &b);
	need(b.object.build_id_size, "a build id");
	strncpy(str + 9, name, sizeof(str) - 10);

	Elf64_Sym y[5] = {
		[1] = { 1, ELF64_ST_INFO(STB_LOCAL, STT_FUNC), 0, S_TEXT, 0, sizeof(code) },
		[2] = { 9, ELF64_ST_INFO(STB_GLOBAL, STT_NOTYPE), 0, 0, 0, 0 },
		[3] = { 16, ELF64_ST_INFO(STB_GLOBAL, STT_NOTYPE), 0, 0, 0, 0 },
		[4] = { 24, ELF64_ST_INFO(STB_LOCAL, STT_OBJECT), 0, S_RODATA, 0, 4 },
	};
	const Elf64_Rela text[] = {
		{ 5, ELF64_R_INFO(2, R_X86_64_PLT32), -4 },
		{ 12, ELF64_R_INFO(3, R_X86_64_REX_GOTPCRELX), -4 },
		{ 21, ELF64_R_INFO(4, R_X86_64_PC32), -4 },
	};
	const Elf64_Rela frame[] = { { 0x20, ELF64_R_INFO(1, R_X86_64_PC32), 0 } };
	struct wflp_patch_head head = {
		.magic = { 'W', 'F', 'L', 'P', 'A', 'T', 'C', 'H' },
		.version = WFLP_PATCH_VERSION, .head_size = sizeof(head),
		.object_count = 1, .function_count = 1, .symbol_count = 2, .name_off = 9,
	};
	struct wflp_patch_func func = {
		.new_symbol = 1, .old_addr = (uintptr_t)subject - b.addr,
		.old_size = subject_size(), .name_off = 1,
	};
	const struct wflp_patch_sym syms[] = {
		{ .symbol = 2, .addr = (uintptr_t)helper - b.addr, .name_off = 1 },
		{ .symbol = 3, .addr = (uintptr_t)&counter - b.addr, .name_off = 1 },
	};
	/* What the file has, also if the text has been changed meanwhile. */
	static uint8_t old[64];
	static size_t old_size;

	if (!old_size) {
		old_size = subject_size();
		memcpy(old, (void *)subject, old_size);
	}
	wflp_sha256_begin(&sum);
	wflp_sha256_add(&sum, old, old_size);
	wflp_sha256_end(&sum, func.old_sha256);

	add(file, &at, &h[S_TEXT], code, sizeof(code));
	add(file, &at, &h[S_RODATA], &value, sizeof(value));
	add(file, &at, &h[S_FRAMES], frames, sizeof(frames));
	add(file, &at, &h[S_RTEXT], text, sizeof(text));
	add(file, &at, &h[S_RFRAMES], frame, sizeof(frame));
	add(file, &at, &h[S_SYMTAB], y, sizeof(y));
	add(file, &at, &h[S_STRTAB], symbols, sizeof(symbols));
	add(file, &at, &h[S_HEAD], &head, sizeof(head));
	add(file, &at, &h[S_OBJECTS], &b.object, sizeof(b.object));
	add(file, &at, &h[S_FUNCS], &func, sizeof(func));
	add(file, &at, &h[S_SYMS], syms, sizeof(syms));
	add(file, &at, &h[S_STR], str, sizeof(str));
	for (int i = 0; i < S_N; i++) {
		h[i].sh_name = (uint32_t)(n - names);
		n += strlen(n) + 1;
		h[i].sh_type = i ? SHT_PROGBITS : SHT_NULL;
		h[i].sh_addralign = 1;
	}
	h[S_TEXT].sh_flags = SHF_ALLOC | SHF_EXECINSTR;
	h[S_TEXT].sh_addralign = 16;
	h[S_RODATA].sh_flags = SHF_ALLOC;
	h[S_RODATA].sh_addralign = 4;
	h[S_FRAMES].sh_flags = SHF_ALLOC;
	h[S_FRAMES].sh_addralign = 8;
	h[S_RTEXT].sh_type = h[S_RFRAMES].sh_type = SHT_RELA;
	h[S_RTEXT].sh_entsize = h[S_RFRAMES].sh_entsize = sizeof(Elf64_Rela);
	h[S_RTEXT].sh_info = S_TEXT;
	h[S_RFRAMES].sh_info = S_FRAMES;
	h[S_SYMTAB].sh_type = SHT_SYMTAB;
	h[S_SYMTAB].sh_entsize = sizeof(Elf64_Sym);
	h[S_SYMTAB].sh_link = S_STRTAB;
	h[S_STRTAB].sh_type = SHT_STRTAB;

	/* The names of the sections are the last of them, beyond the others. */
	Elf64_Shdr last = { .sh_name = 0, .sh_type = SHT_STRTAB };
	Elf64_Ehdr e = {
		.e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
		.e_type = ET_REL, .e_machine = EM_X86_64, .e_version = EV_CURRENT,
		.e_ehsize = sizeof(e), .e_shentsize = sizeof(Elf64_Shdr),
		.e_shnum = S_N + 1, .e_shstrndx = S_N,
	};

	add(file, &at, &last, names, sizeof(names));
	e.e_shoff = at = (at + 15) & ~15ul;
	memcpy(file + at, h, sizeof(h));
	memcpy(file + at + sizeof(h), &last, sizeof(last));
	memcpy(file, &e, sizeof(e));
	*size = at + sizeof(h) + sizeof(last);
	repack(file, *size);
	return file;
}

void repack(uint8_t *file, size_t size)
{
	const uint8_t *head = memmem(file, size, WFLP_PATCH_MAGIC, 8);
	size_t at;

	if (!head)
		return;
	at = (size_t)(head - file) + offsetof(struct wflp_patch_head, id);
	if (at + 32 <= size)
		wflp_patchfile_id(file, size, at, file + at);
}
