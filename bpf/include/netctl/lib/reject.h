/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * `reject`: the answer to a packet that is refused, in the packet's own buffer, back by the way that it came.
 * TCP gets a RST (RFC 9293, 3.10.7.1), all else port unreachable of ICMP or ICMPv6. Silent stays what RFC 1122
 * (3.2.2) and RFC 4443 (2.4 e) say: a RST, an ICMP error, what is sent to many, a fragment behind the first, and
 * what has no sender.
 *
 * The same as userspace/testing/answer.cpp, which the prog suite compares it with.
 */
#ifndef NETCTL_LIB_REJECT_H
#define NETCTL_LIB_REJECT_H

#include <netctl/lib/answer.h>
#include <netctl/lib/limit.h>
#include <netctl/lib/ruleset.h>

/* Outlives a commit, like `stats`. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_rejects);
} rejects SEC(".maps");

/* Between two ICMP errors, and how far ahead a burst of them may be. */
const volatile __u32 errors_interval = NC_ERRORS_INTERVAL_NS;
const volatile __u32 errors_burst = NC_ERRORS_BURST_NS;

static __u64 errors_arrival;

static __noinline int nc_send_rst(nc_ctx *ctx, struct nc_answer *a)
{
	const struct nc_incoming *r = &a->packet;
	const struct tcphdr *was = nc_incoming_tcp(a);
	struct tcphdr *tcp = nc_answer_tcp(a);
	__u32 at = r->transport, flags, data;

	if (!was)
		return NC_ANSWER_SILENT;
	flags = ((const __u8 *)was)[13];
	data = (((const __u8 *)was)[12] >> 4) * 4;
	if (flags & 4 || data < sizeof(*was) || at + data > r->total)
		return NC_ANSWER_SILENT;

	__builtin_memset(a->tcp, 0, sizeof(a->tcp));
	if (flags & 16) { /* ACK */
		tcp->seq = was->ack_seq;
		((__u8 *)tcp)[13] = 4;
	} else { /* SYN and FIN take a number each */
		data = r->total - at - data + (flags >> 1 & 1) + (flags & 1);
		tcp->ack_seq = bpf_htonl(bpf_ntohl(was->seq) + data);
		((__u8 *)tcp)[13] = 4 | 16;
	}
	return nc_send_tcp(ctx, a, was, sizeof(*tcp));
}

static __always_inline bool nc_is_about_error(const struct nc_answer *a)
{
	const struct nc_incoming *r = &a->packet;
	__u32 at = r->transport, type;

	if (r->proto != (r->ipv4 ? NC_PROTO_ICMP : NC_PROTO_ICMPV6))
		return false;
	if (at > NC_ERROR_QUOTE - 2 || at + 2 > r->quoted)
		return true; /* nobody knows */
	nc_opaque(at);
	at &= NC_ERROR_QUOTE - 1;
	type = a->error[NC_QUOTE_AT + at];
	/* A redirect is one in this respect. */
	return r->ipv4 ? type == 5 || type == 4 || nc_is_icmp_error(true, type) :
			 type < 128 || type == 137;
}

static __noinline int nc_send_error(nc_ctx *ctx, struct nc_answer *a)
{
	const struct nc_incoming *r = &a->packet;
	__u32 quoted = nc_size(r->quoted, NC_ERROR_QUOTE), even;
	__u8 *icmp = a->error + sizeof(struct ipv6hdr), *ipv4 = icmp - sizeof(struct iphdr);
	__u64 sum, pseudo = 0;

	if (nc_is_about_error(a))
		return NC_ANSWER_SILENT;
	if (errors_interval && nc_take(&errors_arrival, bpf_ktime_get_ns(), errors_interval,
				       errors_burst) != NC_LIMIT_WITHIN)
		return NC_ANSWER_SUPPRESSED;
	if (r->ipv4)
		nc_answer_ip(a, ipv4, true, NC_PROTO_ICMP, NC_ICMP_SIZE + quoted);
	else
		nc_answer_ip(a, a->error, false, NC_PROTO_ICMPV6, NC_ICMP_SIZE + quoted);
	__builtin_memset(icmp, 0, NC_ICMP_SIZE);
	icmp[0] = r->ipv4 ? 3 : 1;
	icmp[1] = r->ipv4 ? 3 : 4;

	/* The sum is of whole words. */
	a->error[NC_QUOTE_AT + quoted] = 0;
	a->error[NC_QUOTE_AT + quoted + 1] = 0;
	a->error[NC_QUOTE_AT + quoted + 2] = 0;
	even = (quoted + 3) & ~3u;
	if (!r->ipv4)
		pseudo = nc_pseudo(a->error + 8, false, NC_PROTO_ICMPV6, NC_ICMP_SIZE + quoted);
	sum = (__u32)bpf_csum_diff(NULL, 0, (void *)a->error + NC_QUOTE_AT, even, pseudo);
	*(__u16 *)(icmp + 2) = ~nc_fold(bpf_csum_diff(NULL, 0, (void *)icmp, NC_ICMP_SIZE, sum));
	/* Whoever sends it on puts a checksum where that of UDP was: over the rest, and what stands there. From this
	 * start it comes to zero in one's complement, in a field that has no meaning. */
	if (r->open)
		*(__u16 *)(icmp + 6) = nc_fold(pseudo);
	if (r->ipv4)
		return nc_send(ctx, a, ipv4, sizeof(struct iphdr) + NC_ICMP_SIZE + quoted);
	return nc_send(ctx, a, a->error, NC_QUOTE_AT + quoted);
}

/* Answers a packet that is refused: turns the frame into the answer. */
static __always_inline enum nc_answered nc_answer(nc_ctx *ctx, const struct nc_packet *p)
{
	__u32 zero = 0;
	struct nc_answer *a = bpf_map_lookup_elem(&answers, &zero);
	struct nc_incoming *r;

	if (!a)
		return NC_ANSWER_FAILED;
	if (!(p->has & (NC_HAS_IPV4 | NC_HAS_IPV6)))
		return NC_ANSWER_SILENT;
	r = &a->packet;
	r->ipv4 = p->has & NC_HAS_IPV4;
	r->proto = p->proto;
	if (!nc_read_incoming(ctx, a))
		return NC_ANSWER_SILENT;
	r->open = nc_ctx_checksum_is_open(ctx, r->ip);
	/* An answer has the checksum elsewhere then. */
	if (r->open && ((r->proto != NC_PROTO_TCP && r->proto != NC_PROTO_UDP) ||
			r->transport != (r->ipv4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr))))
		return NC_ANSWER_FAILED;
	return r->proto == NC_PROTO_TCP ? nc_send_rst(ctx, a) : nc_send_error(ctx, a);
}

/* Answers the packet, if it is to be answered, and counts. True if the frame is the answer now, and to be sent
 * out of the interface that the packet came by. */
static __always_inline bool nc_reject(nc_ctx *ctx, const struct nc_packet *p)
{
	struct nc_rejects *counted;
	enum nc_answered answered;
	__u32 zero = 0;

	if (simulate || !(actions_used & NC_ACTION_REJECT))
		return false;
	answered = nc_answer(ctx, p);
	counted = bpf_map_lookup_elem(&rejects, &zero);
	if (counted) {
		counted->packets++;
		counted->silent += answered == NC_ANSWER_SILENT;
		counted->suppressed += answered == NC_ANSWER_SUPPRESSED;
		counted->failed += answered == NC_ANSWER_FAILED;
	}
	return answered == NC_ANSWERED;
}

#endif
