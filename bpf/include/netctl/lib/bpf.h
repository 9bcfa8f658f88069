/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * First include of the packet filters' headers: kernel types, helpers, and small tools.
 */
#ifndef NETCTL_LIB_BPF_H
#define NETCTL_LIB_BPF_H

#ifndef __bpf__
#error "netctl/lib/ is for BPF programs; userspace shares netctl/abi/ with them"
#endif

/* The filters look at contexts and wire formats, which are the same everywhere: no relocation but where one
 * is asked for, of what is the kernel's own. */
#define BPF_NO_PRESERVE_ACCESS_INDEX
#include <vmlinux.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include <netctl/abi/types.h>

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* Hides from the compiler, not from the verifier, where a value comes from: for keeping a bounds
 * check next to the access that it guards. */
#define nc_opaque(x) asm volatile("" : "+r"(x))

/* Puts a struct into the object's BTF. clang leaves out, or in without its members, what only the
 * definition of an inner map or of a ring buffer's events leads to. */
#define NC_BTF(name) const volatile struct name *btf_of_##name __attribute__((unused))

#endif
