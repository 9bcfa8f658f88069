/* SPDX-License-Identifier: GPL-2.0-only */
/* Redirection: how a pair leaves the map. */
#ifndef NETCTL_REDIRECT_LEAVE_H
#define NETCTL_REDIRECT_LEAVE_H

#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "netctl/abi/redirect.h"

#include "redirect_ends.h"
#include "redirect_state.h"

static __always_inline bool queue_empty(__u64 psock)
{
	struct sk_psock *ps = (void *)psock;
	struct list_head *next = NULL;

	READ(next, &ps->ingress_msg.next);
	return next == &ps->ingress_msg;
}

#define MANY 1000

/* Threads asleep in recv or send on a socket; MANY if the wait queue is too long to tell. */
static __always_inline int sleepers(__u64 socket)
{
	struct sock *sk = (void *)socket;
	struct list_head *head, *entry = NULL;
	struct socket_wq *wq = NULL;
	int n = 0;

	READ(wq, &sk->sk_wq);
	if (!wq)
		return 0;
	head = &wq->wait.head;
	READ(entry, &head->next);
#pragma unroll
	for (int i = 0; i < 8; i++) {
		struct wait_queue_entry *wait;
		void *function = NULL;

		if (!entry || entry == head)
			return n;
		wait = (void *)entry - bpf_core_field_offset(struct wait_queue_entry, entry);
		READ(function, &wait->func);
		if (function == &woken_wake_function)
			n++;
		READ(entry, &entry->next);
	}
	return MANY;
}

/*
 * Nobody but threads asleep, and `own` of the caller, holds the psock of an end: no send of it is
 * between its verdict and the other end's queue. In a send, the kernel holds one all the way.
 */
static __always_inline bool idle(const struct nc_rd_pair *p, __u32 i, int own)
{
	struct sk_psock *ps = (void *)p->psock[i & 1];
	int before = 0, after = 0, n;

	if (gone(p->socket[i & 1], p->psock[i & 1]))
		return true;
	READ(before, &ps->refcnt);
	n = sleepers(p->socket[i & 1]);
	READ(after, &ps->refcnt);
	return n != MANY && before == after && before <= 1 /* the map's */ + own + n;
}

/* Nothing that was redirected to an end is unread. */
static __always_inline bool drained(const struct nc_rd_pair *p, __u32 i)
{
	return gone(p->socket[i & 1], p->psock[i & 1]) || queue_empty(p->psock[i & 1]);
}

#define NOBODY 2

/*
 * Closes the gate, if that can be done in this moment; true if it is closed. `me` is the end whose
 * send this is, or NOBODY: its hold on the psock is no sign of another's.
 *
 * A message that comes meanwhile takes CLOSING away before it is redirected (rd_msg), and then the
 * last step fails. One that came earlier still holds its psock when we look, or is in the queue.
 */
static __noinline bool close_gate(struct nc_rd_pair *p, __u32 me)
{
	__u64 gate = p->gate, mine = 0, seen;

	if (gate & NC_RD_CLOSED)
		return true;
	if (!drained(p, 0) || !drained(p, 1))
		return false;
		/* Another's try fails then; it comes again. */
#pragma unroll
	for (int i = 0; i < 4; i++) {
		mine = (gate + NC_RD_GATE_TRY) | NC_RD_CLOSING;
		seen = __sync_val_compare_and_swap(&p->gate, gate, mine);
		if (seen == gate)
			break;
		if (seen & NC_RD_CLOSED)
			return true;
		gate = seen;
		mine = 0;
	}
	if (!mine)
		return false;
	if ((gate & NC_RD_TURNED_0 && !idle(p, 0, me == 0)) ||
	    (gate & NC_RD_TURNED_1 && !idle(p, 1, me == 1)) || !drained(p, 0) || !drained(p, 1)) {
		__sync_val_compare_and_swap(&p->gate, mine, mine & ~(__u64)NC_RD_CLOSING);
		return false;
	}
	seen = __sync_val_compare_and_swap(&p->gate, mine,
					   (mine & ~(__u64)NC_RD_CLOSING) | NC_RD_CLOSED);
	return seen == mine || seen & NC_RD_CLOSED;
}

/* The pair is out of the map: its counters go to the totals, its story to `recent`. */
static __noinline void close_pair(struct nc_rd_pair *p)
{
	struct nc_rd_event key = { .netns = p->netns, .end = p->end };
	struct nc_rd_stats *s = stats();
	struct nc_rd_recent recent = {};

	if (s) {
		s->redirected_messages += p->redirected_messages[0] + p->redirected_messages[1];
		s->redirected_bytes += p->redirected_bytes[0] + p->redirected_bytes[1];
		s->passed_messages += p->passed_messages[0] + p->passed_messages[1];
		s->passed_bytes += p->passed_bytes[0] + p->passed_bytes[1];
	}
	recent.reason = p->reason;
	recent.was_joined = 1;
	__builtin_memcpy(recent.process, p->process, sizeof(recent.process));
	__builtin_memcpy(recent.redirected_messages, p->redirected_messages,
			 sizeof(recent.redirected_messages));
	__builtin_memcpy(recent.redirected_bytes, p->redirected_bytes,
			 sizeof(recent.redirected_bytes));
	if (p->reason != NC_RD_REASON_CLOSED)
		bpf_map_update_elem(&rd_recent, &key, &recent, BPF_ANY);
	p->redirected_messages[0] = p->redirected_messages[1] = 0;
	p->redirected_bytes[0] = p->redirected_bytes[1] = 0;
	p->passed_messages[0] = p->passed_messages[1] = 0;
	p->passed_bytes[0] = p->passed_bytes[1] = 0;
	p->freed_ns = bpf_ktime_get_ns();
	barrier();
	p->state = NC_RD_FREE;
}

/* The joiner wakes a reader that may not hear of what comes to it by TCP, when it can be told. */
static __noinline void tell_behind(struct nc_rd_pair *p, __u32 slot, __u32 reader)
{
	struct nc_rd_behind behind = { .key = p->key, .slot = slot, .end = reader };

	__sync_fetch_and_or(&p->behind, 1U << reader); /* both directions may be here */
	if (bpf_ringbuf_output(&rd_events, &behind, sizeof(behind), 0))
		COUNT(helper_failed);
}

/* Behind a closed gate. Also if another is about it: the caller's segment must not arrive before. */
static __noinline int delete_ends(struct nc_rd_pair *p, __u32 slot)
{
#pragma unroll
	for (int i = 0; i < 2; i++) {
		__u32 index = 2 * slot + i;

		if (gone(p->socket[i], p->psock[i]))
			continue;
		if (!bpf_map_delete_elem(&rd_socks, &index))
			COUNT(removed);
		else if (!gone(p->socket[i], p->psock[i]))
			COUNT(helper_failed);
	}
	return 0;
}

/*
 * Takes both ends of a leaving pair out of the map as soon as S3 allows; true if they are out. Never
 * one of them alone: what it sends then would run no program, and pass what is unread at the other
 * (S2). The kernel lets sock_ops, and timers and tests of traffic classifiers, delete; not sk_msg.
 */
static __noinline bool take_out(struct nc_rd_pair *p, __u32 slot)
{
	if (p->state != NC_RD_LEAVING)
		return true;
	if (!close_gate(p, NOBODY))
		return false;
	delete_ends(p, slot);
	if (!__sync_val_compare_and_swap(&p->busy, 0ULL, 1ULL)) {
		if (p->state == NC_RD_LEAVING)
			close_pair(p);
		__sync_val_compare_and_swap(&p->busy, 1ULL, 0ULL);
	}
	return true;
}

/* When no callback of the connection comes, at 1, 2, 4 … ms, then every second. */
static int on_timer(void *map, __u32 *slot, struct nc_rd_pair *p)
{
	if (p->state != NC_RD_LEAVING)
		return 0;
	if (take_out(p, *slot)) {
		COUNT(removed_by_timer);
	} else {
		if (p->tries < 10)
			p->tries++;
		if (bpf_timer_start(&p->timer, 1000000ULL << p->tries, 0))
			COUNT(helper_failed);
	}
	return 0;
}

static __always_inline void leave(struct nc_rd_pair *p, __u32 reason)
{
	if (__sync_val_compare_and_swap(&p->state, (__u64)NC_RD_JOINED, (__u64)NC_RD_LEAVING) !=
	    NC_RD_JOINED)
		return;
	p->reason = reason;
	count_on_tcp(reason);
	if (bpf_timer_start(&p->timer, 1000000, 0))
		COUNT(helper_failed);
}

#endif
