/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * `syncookie`: the SYN to a listener of this host is answered with the kernel's own cookie, in the packet's own
 * buffer, if the kernel wants it to be (bpf_tcp_gen_syncookie(): net.ipv4.tcp_syncookies is 2, or it is 1 and the
 * listener's queue is full). The ACK that comes back is the kernel's to check. All else passes, or is dropped if it is
 * over the limit of a rule (`over syncookie`).
 *
 * The answer is what the kernel's would be: the options that a cookie has no room for are left to the client's
 * timestamps as in cookie_init_timestamp() of net/ipv4/syncookies.c. That takes net.ipv4.tcp_timestamps = 2: with 1
 * the kernel takes off what it echoes an offset that only it knows.
 *
 * The same as userspace/testing/syn_answer.cpp, which the prog suite compares it with.
 */
#ifndef NETCTL_LIB_SYNCOOKIE_H
#define NETCTL_LIB_SYNCOOKIE_H

#include <netctl/lib/answer.h>
#include <netctl/lib/ruleset.h>

/* Outlives a commit, like `stats`. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_syncookies);
} syncookies SEC(".maps");

#define NC_TCP_MOST 64 /* a header has 60 bytes at most; a power of 2 */
/* linux/tcp.h */
#define NC_TCPOPT_EOL 0
#define NC_TCPOPT_NOP 1
#define NC_TCPOPT_MSS 2
#define NC_TCPOPT_WINDOW 3
#define NC_TCPOPT_SACK_PERM 4
#define NC_TCPOPT_TIMESTAMP 8
#define NC_TCPOPT_MD5SIG 19
#define NC_TCPOPT_AO 29
#define NC_TCP_MAX_WSCALE 14
#define NC_LEAST_MTU 68	   /* RFC 791 */
#define NC_MOST_MSS 65495u /* what an IPv4 packet holds (ipv4_default_advmss()) */
/* cookie_init_timestamp(): the last bits of the time that hold options. */
#define NC_TS_BITS 6
#define NC_TS_NO_WSCALE 0xf
#define NC_TS_SACK (1 << 4)

/* What the SYN offers, as tcp_parse_options() reads it, and what the listener has to say to it. */
struct nc_syn {
	__u32 size; /* of its TCP header, in bytes */
	__u32 at;   /* how far it was read */
	__be32 timestamp;
	__u8 has_timestamp;
	__u8 has_wscale;
	__u8 wscale;
	__u8 sack;
	__u8 is_signed; /* by MD5 or TCP-AO (RFC 2385, RFC 5925) */
	__u8 own_wscale;
	__u16 own_window;
	__u32 own_mss;
	__u32 cookie;
	__u8 header[NC_TCP_MOST];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_syn);
} syns SEC(".maps");

/* What of a listener the kernel looks at when it answers a SYN. */
struct tcp_options_received___nc {
	__u16 user_mss;
} __attribute__((preserve_access_index));

struct tcp_sock___nc {
	__u32 window_clamp;
	__u8 scaling_ratio; /* kernel 6.6: the part of a buffer that is of use, in 256ths */
	struct tcp_options_received___nc rx_opt;
} __attribute__((preserve_access_index));

struct netns_ipv4___nc {
	__u8 sysctl_tcp_timestamps;
	__u8 sysctl_tcp_sack;
	__u8 sysctl_tcp_window_scaling;
	int sysctl_tcp_rmem[3];
} __attribute__((preserve_access_index));

struct net___nc {
	struct netns_ipv4___nc ipv4;
} __attribute__((preserve_access_index));

typedef struct {
	struct net___nc *net;
} __attribute__((preserve_access_index)) possible_net_t___nc;

struct sock_common___nc {
	possible_net_t___nc skc_net;
} __attribute__((preserve_access_index));

struct sock___nc {
	struct sock_common___nc __sk_common;
	int sk_rcvbuf;
	__u8 sk_userlocks;
} __attribute__((preserve_access_index));

#define NC_SOCK_RCVBUF_LOCK 2 /* SO_RCVBUF was set */

static __always_inline __u32 nc_header_byte(const struct nc_syn *s, __u32 at)
{
	return s->header[at & (NC_TCP_MOST - 1)];
}

/* Reads what the SYN offers. `at` is in memory, of which the verifier keeps no bounds: so the ways through the loop are
 * all alike to it, and not looked at once for each combination of options. */
static __noinline int nc_read_offer(struct nc_syn *s)
{
	volatile __u32 *place = &s->at;
	int i;

	s->has_timestamp = s->has_wscale = s->sack = s->is_signed = 0;
	*place = sizeof(struct tcphdr);
	for (i = 0; i < NC_TCP_MOST - (int)sizeof(struct tcphdr); i++) {
		__u32 at = *place, end = *(volatile __u32 *)&s->size, kind, size = 1;

		if (at >= end)
			break;
		kind = nc_header_byte(s, at);
		if (kind == NC_TCPOPT_EOL)
			break;
		if (kind != NC_TCPOPT_NOP) {
			size = nc_header_byte(s, at + 1);
			if (at + 1 >= end || size < 2 || at + size > end)
				break;
		}
		if (kind == NC_TCPOPT_WINDOW && size == 3) {
			__u32 wscale = nc_header_byte(s, at + 2);

			s->has_wscale = 1;
			s->wscale = wscale < NC_TCP_MAX_WSCALE ? wscale : NC_TCP_MAX_WSCALE;
		} else if (kind == NC_TCPOPT_SACK_PERM && size == 2) {
			s->sack = 1;
		} else if (kind == NC_TCPOPT_TIMESTAMP && size == 10) {
			s->has_timestamp = 1;
			s->timestamp = bpf_htonl(
				nc_header_byte(s, at + 2) << 24 | nc_header_byte(s, at + 3) << 16 |
				nc_header_byte(s, at + 4) << 8 | nc_header_byte(s, at + 5));
		} else if (kind == NC_TCPOPT_MD5SIG || kind == NC_TCPOPT_AO) {
			s->is_signed = 1;
		}
		*place = at + size;
	}
	return 0;
}

/* What the kernel would answer (tcp_openreq_init_rwin()), and what it will make of the ACK (cookie_v4_check()): it is
 * not to be promised more than that. */
static __always_inline void nc_agree(struct nc_syn *s, const struct tcp_sock *listener)
{
	const struct sock___nc *sock = (const void *)listener;
	const struct tcp_sock___nc *tcp = (const void *)listener;
	const struct netns_ipv4___nc *net = &sock->__sk_common.skc_net.net->ipv4;
	__u32 space = sock->sk_rcvbuf, clamp = tcp->window_clamp, most = net->sysctl_tcp_rmem[2];
	__u32 mss = tcp->rx_opt.user_mss;

	if (mss && mss < s->own_mss)
		s->own_mss = mss;
	if (net->sysctl_tcp_timestamps != 2)
		s->has_timestamp = 0;
	/* Where there is no ratio, net.ipv4.tcp_adv_win_scale is taken for what it is unless set: 1. */
	if (bpf_core_field_exists(tcp->scaling_ratio))
		space = (__u64)space * tcp->scaling_ratio >> 8;
	else
		space >>= 1;
	if (clamp && clamp < space)
		space = clamp;
	mss = s->own_mss - (s->has_timestamp ? 12 : 0);
	if (space > mss)
		space -= space % mss;
	s->own_window = space < 0xffff ? space : 0xffff;

	if (!net->sysctl_tcp_sack)
		s->sack = 0;
	/* A buffer of a size that was set decides what the kernel will scale by; then there is no scaling. */
	if (!net->sysctl_tcp_window_scaling || clamp ||
	    BPF_CORE_READ_BITFIELD(sock, sk_userlocks) & NC_SOCK_RCVBUF_LOCK)
		s->has_wscale = 0;
	if (most < space)
		most = space;
	s->own_wscale = 0;
	while (s->own_wscale < NC_TCP_MAX_WSCALE && most >> 16) {
		most >>= 1;
		s->own_wscale++;
	}
}

enum nc_cookied { NC_COOKIE_NONE, NC_COOKIE_REFUSED, NC_COOKIE_GIVEN };

/* Asks the listener that the SYN is for. By itself, for the stack's sake. */
static __noinline int nc_ask_listener(nc_ctx *ctx, const struct nc_packet *p, struct nc_answer *a,
				      struct nc_syn *s)
{
	bool ipv4 = a->packet.ipv4;
	struct bpf_sock_tuple tuple = {};
	enum nc_cookied cookied = NC_COOKIE_NONE;
	__u32 size = nc_tuple_of(p, ipv4, &tuple);
	struct bpf_sock *socket;
	struct tcp_sock *listener;
	__s64 cookie;

	socket = bpf_skc_lookup_tcp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!socket)
		return NC_COOKIE_NONE;
	if (socket->state != BPF_TCP_LISTEN)
		goto out;
	cookied = NC_COOKIE_REFUSED;
	cookie = bpf_tcp_gen_syncookie(socket, a->error + NC_QUOTE_AT,
				       ipv4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr),
				       (void *)s->header, nc_size(s->size, NC_TCP_MOST));
	listener = bpf_skc_to_tcp_sock(socket);
	if (cookie < 0 || !listener)
		goto out;
	s->cookie = cookie;
	nc_agree(s, listener);
	cookied = NC_COOKIE_GIVEN;
out:
	bpf_sk_release(socket);
	return cookied;
}

static __noinline int nc_send_syn_ack(nc_ctx *ctx, struct nc_answer *a, const struct nc_syn *s)
{
	const struct tcphdr *was = (const void *)s->header;
	struct tcphdr *tcp = nc_answer_tcp(a);
	__be32 *option = (__be32 *)(tcp + 1);
	__u32 length = sizeof(*tcp) + 4;

	__builtin_memset(a->tcp, 0, sizeof(a->tcp));
	tcp->seq = bpf_htonl(s->cookie);
	tcp->ack_seq = bpf_htonl(bpf_ntohl(was->seq) + 1);
	((__u8 *)tcp)[13] = 2 | 16;
	tcp->window = bpf_htons(s->own_window);
	option[0] = bpf_htonl(NC_TCPOPT_MSS << 24 | 4 << 16 | s->own_mss);
	if (s->has_timestamp) {
		__u32 now = bpf_ktime_get_ns() / 1000000, then;

		then = now & -(1u << NC_TS_BITS);
		then |= s->has_wscale ? s->wscale : NC_TS_NO_WSCALE;
		then |= s->sack ? NC_TS_SACK : 0;
		if (then > now)
			then -= 1u << NC_TS_BITS;
		option[1] = bpf_htonl((s->sack ? NC_TCPOPT_SACK_PERM << 24 | 2 << 16 :
						 NC_TCPOPT_NOP << 24 | NC_TCPOPT_NOP << 16) |
				      NC_TCPOPT_TIMESTAMP << 8 | 10);
		option[2] = bpf_htonl(then);
		option[3] = s->timestamp;
		length += 12;
		if (s->has_wscale) {
			option[4] = bpf_htonl(NC_TCPOPT_NOP << 24 | NC_TCPOPT_WINDOW << 16 |
					      3 << 8 | s->own_wscale);
			length += 4;
		}
	}
	return nc_send_tcp(ctx, a, was, length);
}

/* Reads the SYN into `a` and `s`; false if it is not to be answered. */
static __always_inline bool nc_read_syn(nc_ctx *ctx, struct nc_answer *a, struct nc_syn *s)
{
	struct nc_incoming *r = &a->packet;
	const struct tcphdr *tcp;
	__u32 ip_size = r->ipv4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr), mtu = 0;

	if (!nc_read_incoming(ctx, a))
		return false;
	tcp = nc_incoming_tcp(a);
	if (!tcp)
		return false;
	s->size = (((const __u8 *)tcp)[12] >> 4) * 4;
	if (s->size < sizeof(*tcp) || r->transport + s->size > r->total ||
	    nc_ctx_load(ctx, r->ip + r->transport, s->header, nc_size(s->size, NC_TCP_MOST)))
		return false;
	nc_read_offer(s);
	if (s->is_signed || bpf_check_mtu(ctx, 0, &mtu, 0, 0) < 0 || mtu < NC_LEAST_MTU)
		return false;
	mtu -= ip_size + sizeof(*tcp);
	s->own_mss = mtu < NC_MOST_MSS ? mtu : NC_MOST_MSS;
	return true;
}

/* Answers the packet if it is a SYN to a listener that wants it to be, and counts. `otherwise` is the XDP action for what
 * is not answered; returns an XDP action. */
static __always_inline int nc_syncookie(nc_ctx *ctx, const struct nc_packet *p, int otherwise)
{
	enum nc_cookied cookied = NC_COOKIE_NONE;
	enum nc_answered answered = NC_ANSWER_SILENT;
	struct nc_syncookies *counted;
	struct nc_answer *a;
	struct nc_syn *s;
	__u32 zero = 0;

	if (simulate || !(actions_used & NC_ACTION_SYNCOOKIE))
		return otherwise;
	a = bpf_map_lookup_elem(&answers, &zero);
	s = bpf_map_lookup_elem(&syns, &zero);
	counted = bpf_map_lookup_elem(&syncookies, &zero);
	if (!a || !s || !counted)
		return otherwise;
	counted->packets++;
	/* SYN, without FIN, RST and ACK */
	if (!(p->has & NC_HAS_FLAGS) || (p->flags & 0x17) != 2 || p->frag != NC_FRAG_NONE)
		goto unanswered;
	a->packet.ipv4 = p->has & NC_HAS_IPV4;
	a->packet.proto = NC_PROTO_TCP;
	a->packet.open = false;
	if (nc_read_syn(ctx, a, s))
		cookied = nc_ask_listener(ctx, p, a, s);
	counted->refused += cookied == NC_COOKIE_REFUSED;
	if (cookied != NC_COOKIE_GIVEN)
		goto unanswered;
	answered = nc_send_syn_ack(ctx, a, s);
	counted->answered += answered == NC_ANSWERED;
	counted->failed += answered != NC_ANSWERED;
	return answered == NC_ANSWERED ? XDP_TX : XDP_DROP;

unanswered:
	counted->dropped += otherwise == XDP_DROP;
	return otherwise;
}

#endif
