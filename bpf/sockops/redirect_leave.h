/* SPDX-License-Identifier: GPL-2.0-only */
/* Redirection: how a pair leaves the map. */
#pragma once

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

/* No send of an end holds its psock, other than threads asleep in it. */
static __always_inline bool idle(const struct nc_rd_pair *p, __u32 i)
{
	struct sk_psock *ps = (void *)p->psock[i & 1];
	int references = 0, n;

	if (gone(p->socket[i & 1], p->psock[i & 1]))
		return true;
	READ(references, &ps->refcnt);
	n = sleepers(p->socket[i & 1]);
	return n != MANY && references <= !!(p->live & 1 << (i & 1)) + n;
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

/*
 * Takes the ends of a leaving pair out of the map as far as S3 allows; true once both are out.
 * The kernel lets sock_ops, and timers and tests of traffic classifiers, delete; not sk_msg.
 *
 * An end's sends that were decided before the pair began to leave hold a reference to the end's
 * psock. So none is on its way if all references are the map's and those of threads asleep in it.
 */
static __noinline bool take_out(struct nc_rd_pair *p, __u32 slot)
{
	__u32 live;

	if (p->state != NC_RD_LEAVING)
		return true;
	if (__sync_val_compare_and_swap(&p->busy, 0ULL, 1ULL))
		return false;
	if (p->state != NC_RD_LEAVING) { /* another was quicker */
		__sync_val_compare_and_swap(&p->busy, 1ULL, 0ULL);
		return true;
	}
	live = p->live;
#pragma unroll
	for (int i = 0; i < 2; i++) {
		__u32 o = !i, index = 2 * slot + i;

		if (!(live & 1 << i))
			continue;
		if (gone(p->socket[i], p->psock[i])) {
			live &= ~(1 << i);
			continue;
		}
		if (p->redirecting[o]) {
			if (!queue_empty(p->psock[i]))
				continue;
			/* From here on it passes; a send that was decided before has a reference. */
			__sync_val_compare_and_swap(&p->redirecting[o], 1ULL, 0ULL);
		}
		if (!p->clean[o]) {
			struct sk_psock *ps = (void *)p->psock[o];
			int references = 0, n;

			if (!gone(p->socket[o], p->psock[o])) {
				READ(references, &ps->refcnt);
				n = sleepers(p->socket[o]);
				if (n == MANY || references > !!(live & 1 << o) + n)
					continue;
			}
			p->clean[o] = 1;
		}
		if (!queue_empty(p->psock[i]))
			continue;
		if (bpf_map_delete_elem(&rd_socks, &index))
			COUNT(helper_failed);
		live &= ~(1 << i);
		COUNT(removed);
	}
	p->live = live;
	if (!live)
		close_pair(p);
	__sync_val_compare_and_swap(&p->busy, 1ULL, 0ULL);
	return !live;
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
