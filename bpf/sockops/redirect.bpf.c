// SPDX-License-Identifier: GPL-2.0-only
/*
 * Redirection of local TCP connections: join late, leave for good.
 *
 * Membership in a sockmap changes how a socket behaves, and redirecting at the wrong moment
 * reorders or loses bytes. So a connection stays plain TCP until the kernel's own counters show
 * requests and responses (rd_sockops). The joiner, a process, then runs rd_join, which puts both
 * ends into the map if they prove to be each other's peer. From then on rd_msg decides for each
 * message: into the peer's queue, or by TCP. At the first sign of anything but small requests and
 * responses the pair is leaving: every later message goes by TCP, and the ends are taken out of
 * the map as soon as nothing redirected is unread or on its way. A connection that left never
 * comes back.
 *
 * What must hold, and where it is seen to:
 *  S1 A direction turns to redirection only when the reader has everything that went by TCP, and
 *     nobody sleeps on the reader but inside the map's own recv. A blocking recv that began
 *     on plain TCP would not look into the new queue; where such are allowed, one message must have
 *     passed since joining and been read, which shows that it is over: may_turn(). And it turns
 *     once: behind a message that found no room in the queue (AHEAD), all others go by TCP, too.
 *  S2 Nothing goes by TCP to a reader that has redirected bytes unread. The map's recv returns at the
 *     end of these though TCP has more, and a reader that takes a short read for an empty socket
 *     (nginx and tokio, with edge-triggered epoll) would wait for ever. So both directions turn back
 *     at once, and both ends leave the map together: when nothing redirected is unread at either or
 *     on its way, close_gate(). Till then a pair that is leaving redirects what it would pass. Only
 *     a reader that is rd_max_ahead behind makes an exception (rd_msg, AHEAD): the joiner is told,
 *     and wakes it when it has emptied the queue (rd_nudge).
 *  S3 An end leaves the map only when its queue is empty (the kernel discards what is in there)
 *     and no send of the other end is between its verdict and that queue: take_out().
 *  S4 The verdict is never SK_DROP: a helper that fails means TCP, and leaving.
 *  S5 A pair joins only when nothing is unread at either end or on its way, join(). Where FIONREAD
 *     does not count what TCP brings to a joined socket (NC_RD_NEVER_PASS), nothing does: what goes
 *     by TCP all the same takes both ends out first, before its segment is sent (rd_sockops).
 */
#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "netctl/abi/redirect.h"

#include "redirect_ends.h"
#include "redirect_join.h"
#include "redirect_leave.h"
#include "redirect_observe.h"
#include "redirect_rules.h"
#include "redirect_state.h"
#include "redirect_to.h"

char LICENSE[] SEC("license") = "GPL";

/* The kernel's FIONREAD does not count what TCP brings to a joined socket. */
static __always_inline bool never_pass(void)
{
	struct nc_rd_conf *c = conf();

	return c && c->flags & NC_RD_NEVER_PASS;
}

/* S5: a send that began on plain TCP, before the pair joined, went on behind that. */
static __always_inline bool passed_by(struct nc_rd_pair *p, struct bpf_sock *sk, __u32 me)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);

	return tp && tp->write_seq != p->written[me] && never_pass();
}

SEC("sockops")
int rd_sockops(struct bpf_sock_ops *ctx)
{
	struct rd_mine *mine;
	struct nc_rd_pair *p;
	struct bpf_sock *sk;
	__u32 op = ctx->op, slot, out, in, other;

	if (op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB || op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB) {
		on_established(ctx, op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB);
		return 1;
	}
	if (op == BPF_SOCK_OPS_TCP_CONNECT_CB) {
		on_connect(ctx);
		return 1;
	}
	if (op != BPF_SOCK_OPS_RTT_CB && op != BPF_SOCK_OPS_HDR_OPT_LEN_CB &&
	    op != BPF_SOCK_OPS_STATE_CB)
		return 1;
	sk = ctx->sk;
	if (!sk)
		return 1;
	out = FIELD(data_segs_out);
	in = FIELD(data_segs_in);
	if (op == BPF_SOCK_OPS_RTT_CB && out < rd_turns)
		return 1;
	mine = bpf_sk_storage_get(&rd_mine, sk, NULL, 0);
	if (!mine || mine->index == NOT_JOINED) {
		/* Without our mark the callback is another program's wish. */
		if (op == BPF_SOCK_OPS_RTT_CB && observed(ctx))
			observe(ctx, sk, mine, out, in);
		return 1;
	}
	slot = mine->index >> 1;
	p = bpf_map_lookup_elem(&rd_pairs, &slot);
	if (!p || p->key != mine->key || p->state == NC_RD_FREE)
		goto out;
	if (op == BPF_SOCK_OPS_STATE_CB)
		leave(p, NC_RD_REASON_CLOSED);
	else if (op == BPF_SOCK_OPS_HDR_OPT_LEN_CB && p->state == NC_RD_JOINED &&
		 passed_by(p, sk, mine->index & 1)) {
		/* While rd_join is about it, it shall take that back, and try again. */
		if (p->joined_ns || !close_gate(p, NOBODY))
			leave(p, NC_RD_REASON_BUSY);
		else
			delete_ends(p, slot);
		if (*(volatile __u64 *)&p->joined_ns)
			leave(p, NC_RD_REASON_BUSY);
	}
	if (p->state != NC_RD_LEAVING)
		return 1;
	if (!take_out(p, slot)) {
		other = !(mine->index & 1);
		if (op == BPF_SOCK_OPS_HDR_OPT_LEN_CB && !(p->behind & 1 << other) &&
		    passed_by(p, sk, !other))
			tell_behind(p, slot, other);
		return 1;
	}
out:
	if (*(volatile __u32 *)&mine->index != NOT_JOINED) /* else rd_join takes it back: undo() */
		set_flags(ctx, 0);
	return 1;
}

/* ---- each message of a joined socket ---- */

static __always_inline void note_process(struct nc_rd_process *process)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct inode *inode = BPF_CORE_READ(task, mm, exe_file, f_inode);

	process->exe_inode = BPF_CORE_READ(inode, i_ino);
	process->exe_device = BPF_CORE_READ(inode, i_sb, s_dev);
	/* Older kernels have no bpf_get_current_comm() in sk_msg. */
	BPF_CORE_READ_INTO(&process->name, task, comm);
	process->pid = bpf_get_current_pid_tgid() >> 32;
}

/* Both executables are known: rules that name one are asked now. */
static __always_inline bool still_allowed(struct nc_rd_pair *p)
{
	struct rd_judgement j = { .pair = p };
	struct nc_rd_conf *c = conf();

	if (!c || c->generation != p->generation)
		return false;
	j.bank = c->bank & 1;
	bpf_loop(NC_RD_RULES, judge_rule, &j, 0);
	return j.verdict == NC_RD_ALLOW;
}

/*
 * Who holds the psock of an end, but for threads asleep: 1 is the map. Negative if that does not stand still, or
 * there are too many to tell. Where one just comes or goes, as with the end of the answer's send, the next look tells:
 * to leave for that would be for good.
 */
static __noinline int holders(struct nc_rd_pair *p, __u32 i)
{
	struct sk_psock *psock = (void *)p->psock[i & 1];

	for (int look = 0; look < 4; look++) {
		int before = 0, after = 0, asleep;

		READ(before, &psock->refcnt);
		asleep = sleepers(p->socket[i & 1]);
		READ(after, &psock->refcnt);
		if (asleep == MANY)
			return -1;
		if (before == after)
			return before - asleep;
	}
	return -1;
}

/*
 * S1. `me` is the sender, `other` the reader. A reader that does not block may be in a recv of plain
 * TCP: that ends, and what is redirected meanwhile raises an edge of its own.
 */
static __always_inline bool may_turn(struct nc_rd_pair *p, struct bpf_sock *sk, __u32 me,
				     __u32 other)
{
	struct tcp_sock *sender = bpf_skc_to_tcp_sock(sk);
	struct tcp_sock *reader = (void *)p->socket[other];
	__u32 copied = 0;
	int owned = 0, held;

	if (!sender || (rd_allow_blocking && (!p->passed[me] || !p->joined_ns)) ||
	    (rd_grace_ns && !never_pass() && bpf_ktime_get_ns() - p->joined_ns < rd_grace_ns))
		return false;
	READ(copied, &reader->copied_seq);
	if (copied != sender->write_seq)
		return false;
	/* Another thread's send that was passed would arrive behind what is redirected now. */
	if (p->passed[me] && !idle(p, me, 1))
		return false;
	READ(owned, &reader->inet_conn.icsk_inet.sk.sk_lock.owned);
	held = holders(p, other);
	return rd_allow_blocking ? !owned && held == 1 : held >= 1;
}

static __always_inline bool nonblocking(struct nc_rd_pair *p, __u32 i)
{
	__u32 flags = 0;

	READ(flags, (void *)p->file_flags[i]);
	return flags & O_NONBLOCK;
}

SEC("sk_msg")
int rd_msg(struct sk_msg_md *msg)
{
	struct bpf_sock *sk = msg->sk;
	struct rd_mine *mine;
	struct nc_rd_pair *p;
	__u32 slot, me, other, size = msg->size, index;
	bool empty, leaving;
	__u64 gate;

	if (!sk)
		return SK_PASS;
	mine = bpf_sk_storage_get(&rd_mine, sk, NULL, 0);
	if (!mine || mine->index == NOT_JOINED)
		return SK_PASS;
	slot = mine->index >> 1;
	me = mine->index & 1;
	other = me ^ 1;
	index = mine->index ^ 1;
	p = bpf_map_lookup_elem(&rd_pairs, &slot);
	if (!p || p->key != mine->key)
		return SK_PASS;
	/* Whoever is about to close the gate must wait for us; a barrier, too: see close_gate(). */
	gate = __sync_fetch_and_and(&p->gate, ~(__u64)NC_RD_CLOSING);
	if (gate & NC_RD_CLOSED)
		goto pass;
	empty = queue_empty(p->psock[other]);
	if (empty)
		p->ahead[me] = 0;

	if (p->state == NC_RD_JOINED) {
		if (!p->process[me].pid)
			note_process(&p->process[me]);
		if (p->last != me) {
			p->last = me;
			p->run = 0;
		}
		if (++p->run > rd_max_run && empty)
			leave(p, NC_RD_REASON_RUN);
		else if (size > rd_max_message)
			leave(p, NC_RD_REASON_BIG);
		else if (!rd_allow_blocking && !(nonblocking(p, me) && nonblocking(p, other)))
			leave(p, NC_RD_REASON_TURNED);
	}
	if (p->ahead[me] && p->ahead[me] + size > p->limit[me])
		leave(p, NC_RD_REASON_AHEAD);
	leaving = p->state != NC_RD_JOINED;
	if (!(gate & NC_RD_TURNED_0 << me) && !leaving) {
		if (!p->judged && p->process[other].pid) {
			if (still_allowed(p))
				p->judged = 1;
			else
				leave(p, NC_RD_REASON_RULE);
		}
		if (!p->judged || !may_turn(p, sk, me, other)) {
			if (!never_pass() && p->state == NC_RD_JOINED)
				goto pass;
			/* While rd_join is about it, it shall take that back, and try again. */
			if (!p->joined_ns && close_gate(p, me)) {
				if (*(volatile __u64 *)&p->joined_ns)
					leave(p, NC_RD_REASON_BUSY);
				goto pass;
			}
			leave(p, NC_RD_REASON_BUSY);
		}
		leaving = p->state != NC_RD_JOINED;
	}
	if (leaving) {
		if (close_gate(p, me))
			goto pass;
		/* S1: what is redirected now would pass what went by TCP before, however small it is. */
		if (p->behind & 1 << other || (p->ahead[me] && p->ahead[me] + size > p->limit[me]))
			goto behind;
		if (!(gate & NC_RD_TURNED_0 << me) &&
		    (!never_pass() || !may_turn(p, sk, me, other)))
			goto behind;
	}
	if (!(gate & NC_RD_TURNED_0 << me)) {
		if (__sync_fetch_and_or(&p->gate, (__u64)NC_RD_TURNED_0 << me) & NC_RD_CLOSED)
			goto pass;
		COUNT(turns);
	}
	p->ahead[me] += size;
	if (bpf_msg_redirect_map(msg, &rd_socks, index, BPF_F_INGRESS) != SK_PASS) {
		leave(p, NC_RD_REASON_FAILED); /* the other end is closed */
		goto pass;
	}
	p->redirected_messages[me]++;
	p->redirected_bytes[me] += size;
	return SK_PASS;

behind:
	if ((!empty || never_pass()) && !(p->behind & 1 << other))
		tell_behind(p, slot, other);
pass:
	p->passed[me] = 1;
	p->passed_messages[me]++;
	p->passed_bytes[me] += size;
	return SK_PASS;
}

/* ---- options set later ---- */

/* Options that mean the same to a joined socket; whatever is not here makes it leave. */
static __always_inline bool harmless(int level, int option)
{
	if (level == SOL_IP || level == SOL_IPV6)
		return true;
	if (level == SOL_SOCKET)
		switch (option) {
		case 1:	 /* SO_DEBUG */
		case 2:	 /* SO_REUSEADDR */
		case 5:	 /* SO_DONTROUTE */
		case 6:	 /* SO_BROADCAST */
		case 7:	 /* SO_SNDBUF */
		case 9:	 /* SO_KEEPALIVE */
		case 12: /* SO_PRIORITY */
		case 13: /* SO_LINGER */
		case 15: /* SO_REUSEPORT */
		case 20: /* SO_RCVTIMEO */
		case 21: /* SO_SNDTIMEO */
		case 36: /* SO_MARK */
		case 46: /* SO_BUSY_POLL */
		case 66: /* SO_RCVTIMEO_NEW */
		case 67: /* SO_SNDTIMEO_NEW */
			return true;
		}
	if (level == SOL_TCP)
		switch (option) {
		case 1:	 /* TCP_NODELAY */
		case 3:	 /* TCP_CORK */
		case 4:	 /* TCP_KEEPIDLE */
		case 5:	 /* TCP_KEEPINTVL */
		case 6:	 /* TCP_KEEPCNT */
		case 8:	 /* TCP_LINGER2 */
		case 12: /* TCP_QUICKACK */
		case 13: /* TCP_CONGESTION */
		case 18: /* TCP_USER_TIMEOUT */
		case 25: /* TCP_NOTSENT_LOWAT */
			return true;
		}
	return false;
}

static __always_inline bool is_ulp(int level, int option)
{
	return level == SOL_TCP && option == 31 /* TCP_ULP */;
}

SEC("cgroup/setsockopt")
int rd_setsockopt(struct bpf_sockopt *ctx)
{
	int level = ctx->level, option = ctx->optname;
	struct rd_mine *mine = NULL;
	struct nc_rd_pair *p;
	struct bpf_sock *sk;
	__u32 slot;

	leave_as_it_is(ctx);
	if (harmless(level, option))
		return 1;
	sk = ctx->sk;
	if (sk)
		mine = bpf_sk_storage_get(&rd_mine, sk, NULL, 0);
	if (!mine)
		return 1;
	if (mine->index == NOT_JOINED) {
		if (mine->key && is_ulp(level, option)) /* in the map while rd_join is about it */
			goto no_ulp;
		return 1; /* rd_join looks at the options themselves */
	}
	slot = mine->index >> 1;
	p = bpf_map_lookup_elem(&rd_pairs, &slot);
	if (!p || p->key != mine->key || p->state == NC_RD_FREE)
		return 1;
	leave(p, NC_RD_REASON_SET);
	/*
	 * With redirected bytes unread, the low-water mark would count only those behind them, and a
	 * reader of both could wait for ever. It is not set then: the reader is woken too early, which
	 * it must expect anyway.
	 */
	if (level == SOL_SOCKET && option == 18 /* SO_RCVLOWAT */ && !close_gate(p, NOBODY)) {
		ctx->optlen = -1;
		return 1;
	}
	if (is_ulp(level, option))
		goto no_ulp;
	return 1;

	/*
	 * kTLS would take redirected bytes for deciphered ones. A kernel without kTLS answers the
	 * same, and TLS libraries then go on in userspace.
	 */
no_ulp:
	bpf_set_retval(-ENOENT);
	return 0;
}

/* ---- joining: run by the joiner with BPF_PROG_TEST_RUN ---- */

SEC("tc")
int rd_join(struct __sk_buff *skb)
{
	struct bpf_sock *sa = NULL, *sb = NULL;
	struct nc_rd_request *q;
	struct nc_rd_conf *c = conf();
	__u32 zero = 0, reason;

	q = bpf_map_lookup_elem(&rd_request, &zero);
	if (!q || !c)
		return 1;
	q->error = 0;
	q->unheard = 0;
	reason = NC_RD_REASON_DISABLED;
	if (c->flags & NC_RD_DRAINING)
		goto done;
	reason = NC_RD_REASON_NO_PEER;
	sa = find(skb, &q->event.end, false, BPF_F_CURRENT_NETNS);
	if (!sa)
		goto done;
	sb = find(skb, &q->event.end, true, q->peer_nsid);
	if (sb)
		reason = join(q, sa, sb, c);
done:
	if (sb)
		bpf_sk_release(sb);
	if (sa)
		bpf_sk_release(sa);
	q->reason = reason;
	/* Read back, so that the verifier follows what comes once, and not once for each reason. */
	reason = *(volatile __u32 *)&q->reason;
	if (q->tentative && (reason == NC_RD_REASON_NO_PEER || reason == NC_RD_REASON_IDENTITY))
		return 0;
	/* What the joiner tries again counts once, when it says that it will not any more. */
	if (reason == NC_RD_REASON_BUSY && !q->final)
		return 0;
	if (reason && reason != NC_RD_REASON_AGAIN &&
	    (q->state || (reason != NC_RD_REASON_FULL && q->error != -ENOMEM))) {
		count_on_tcp(reason);
		remember(&q->event, reason);
	}
	return 0;
}

/* Makes the pair in a slot leave; run until the answer is NC_RD_FREE. The mark tells which request. */
SEC("tc")
int rd_leave(struct __sk_buff *skb)
{
	__u32 which = skb->mark, slot;
	struct nc_rd_request *q;
	struct nc_rd_pair *p;

	q = bpf_map_lookup_elem(&rd_request, &which);
	if (!q)
		return 1;
	slot = q->slot;
	p = bpf_map_lookup_elem(&rd_pairs, &slot);
	if (!p)
		return 1;
	leave(p, q->reason);
	take_out(p, slot);
	q->state = p->state;
	return 0;
}

/*
 * Of all sockets of a namespace, wakes one that is to look again. To set the low-water mark, be it to
 * what it is, makes TCP report what is readable, as if it came now.
 */
SEC("iter/tcp")
int rd_nudge(struct bpf_iter__tcp *ctx)
{
	struct sock_common *common = ctx->sk_common;
	struct nc_rd_request *q;
	struct nc_rd_pair *p;
	struct tcp_sock *tp;
	__u32 zero = 0, slot, reader;
	int mark = 1;
	bool out;

	q = bpf_map_lookup_elem(&rd_request, &zero);
	if (!q || !common)
		return 0;
	slot = q->slot;
	reader = q->reason & 1;
	p = bpf_map_lookup_elem(&rd_pairs, &slot);
	if (!p || p->socket[reader] != (__u64)common)
		return 0;
	if (!drained(p, reader)) {
		q->state = NC_RD_NUDGE_UNREAD;
		return 0;
	}
	/* In the map it may still be told by FIONREAD that nothing is there (S5). */
	out = gone(p->socket[reader], p->psock[reader]) || !never_pass();
	tp = bpf_skc_to_tcp_sock(common);
	if (!tp)
		return 0;
	mark = tp->inet_conn.icsk_inet.sk.sk_rcvlowat;
	if (bpf_setsockopt(tp, SOL_SOCKET, 18 /* SO_RCVLOWAT */, &mark, sizeof(mark)))
		COUNT(helper_failed);
	q->state = out ? NC_RD_NUDGE_DONE : NC_RD_NUDGE_AGAIN;
	return 0;
}
