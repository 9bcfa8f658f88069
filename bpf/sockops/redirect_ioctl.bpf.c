// SPDX-License-Identifier: GPL-2.0-only
/*
 * FIONREAD of joined sockets, for kernels that do not count redirected bytes in it (6.1): nginx, Java
 * and .NET take its answer of 0 for an empty socket. Behind the kernel's own answer, what is in the
 * queue is added to it, in the caller's memory.
 */
#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "netctl/abi/redirect.h"

#include "redirect_ends.h"

char LICENSE[] SEC("license") = "GPL";

#define FIONREAD 0x541b
#define MANY_MESSAGES 16384

struct rd_unread {
	struct list_head *head, *entry;
	__u32 bytes;
};

/* bpf_loop callback: stops at the end of the queue. */
static long add_message(__u32 i, struct rd_unread *unread)
{
	struct sk_msg *message;
	__u32 size = 0;

	if (!unread->entry || unread->entry == unread->head)
		return 1;
	message = (void *)unread->entry - bpf_core_field_offset(struct sk_msg, list);
	READ(size, &message->sg.size);
	unread->bytes += size;
	READ(unread->entry, &unread->entry->next);
	return 0;
}

static __always_inline int answered(struct socket *socket, unsigned int command, void *argument,
				    int result)
{
	struct rd_unread unread = {};
	struct sk_psock *psock;
	struct rd_mine *mine;
	struct nc_rd_pair *p;
	__u32 slot, me, bytes;
	struct sock *sk;
	int answer = 0;

	if (command != FIONREAD || result)
		return 0;
	sk = socket->sk;
	if (!sk)
		return 0;
	mine = bpf_sk_storage_get(&rd_mine, sk, NULL, 0);
	if (!mine || mine->index == NOT_JOINED)
		return 0;
	slot = mine->index >> 1;
	me = mine->index & 1;
	p = bpf_map_lookup_elem(&rd_pairs, &slot);
	if (!p || p->key != mine->key || p->state == NC_RD_FREE ||
	    gone(p->socket[me], p->psock[me]))
		return 0;
	psock = (void *)p->psock[me];
	unread.head = &psock->ingress_msg;
	READ(unread.entry, &unread.head->next);
	bpf_loop(MANY_MESSAGES, add_message, &unread, 0);
	/* Another thread may be reading, and the list be in pieces: never more than was sent. */
	bytes = p->ahead[!me];
	if (unread.bytes < bytes)
		bytes = unread.bytes;
	if (bytes && !bpf_probe_read_user(&answer, sizeof(answer), argument)) {
		answer += bytes;
		bpf_probe_write_user(argument, &answer, sizeof(answer));
	}
	return 0;
}

SEC("fexit/inet_ioctl")
int BPF_PROG(rd_ioctl4, struct socket *socket, unsigned int command, unsigned long argument,
	     int result)
{
	return answered(socket, command, (void *)argument, result);
}

SEC("fexit/inet6_ioctl")
int BPF_PROG(rd_ioctl6, struct socket *socket, unsigned int command, unsigned long argument,
	     int result)
{
	return answered(socket, command, (void *)argument, result);
}
