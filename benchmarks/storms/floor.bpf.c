// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/* A program that returns at once, on the TRACEPOINT that it is compiled for: what the kernel's run-time statistics
 * say of it is what the statistics themselves cost there. */
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define WORD(name) #name
#define SECTION_OF(name) SEC("tp_btf/" WORD(name))

SECTION_OF(TRACEPOINT)
int floor_program(void *context)
{
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
