// SPDX-License-Identifier: GPL-2.0-only
/*
 * The connect policy's programs. The cgroup hooks are asked about sockets that were made in the
 * cgroup that they are attached to, or below; the LSM hooks about whatever a task in it does.
 *
 * What one layer sees and the other does not:
 *   TCP Fast Open by sendto()      cgroup connect; LSM: sendmsg only
 *   UDP sendto(), sendmsg()        both: as sendmsg
 *   raw, SCTP, DCCP                LSM only
 *   a socket from outside of PATH  LSM only
 */
#include <netctl/lib/policy/decide.h>

#include <bpf/bpf_tracing.h>

#define NC_AF_UNSPEC 0
#define NC_AF_INET 2
#define NC_AF_INET6 10
#define NC_AF_SMC 43
#define NC_SOCK_DGRAM 2
#define NC_MSG_FASTOPEN 0x20000000
#define NC_EPERM 1

/* ---- cgroup layer ---- */

enum { NC_REFUSE = 0, NC_LET_PASS = 1 };

/* Constants of their own: computed from the verdict (clang 19 flips its bit), the verifier would not know
 * that it is one of the two. */
static __always_inline int nc_answer(bool refused)
{
	int refuse = NC_REFUSE, pass = NC_LET_PASS;

	nc_opaque(refuse);
	nc_opaque(pass);
	return refused ? refuse : pass;
}

/* Which interface the socket's packets leave by, if that is given: 0 if not. */
static __always_inline __u32 nc_interface(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct inet_sock___nc *inet;
	__u32 unicast = 0;
	__u64 address;

	if (!sk)
		return 0;
	if (sk->bound_dev_if)
		return sk->bound_dev_if;
	if (ctx->type != NC_SOCK_DGRAM)
		return 0;
	/* IP_UNICAST_IF. The verifier allows no arithmetic on a socket's pointer, but its bytes may be
	 * copied. */
	bpf_probe_read_kernel(&address, sizeof(address), &sk);
	inet = (void *)address;
	bpf_probe_read_kernel(&unicast, sizeof(unicast), &inet->uc_index);
	return unicast;
}

/*
 * A datagram of a connected socket comes without an address, as port 0, if control messages go with
 * it (else the hook is not asked). It goes to the peer. Port 0 as an address is refused by the kernel.
 */
static __always_inline bool nc_goes_to_peer(struct bpf_sock_addr *ctx, enum nc_policy_hook hook)
{
	return (hook == NC_HOOK_SENDMSG4 || hook == NC_HOOK_SENDMSG6) && !ctx->user_port && ctx->sk;
}

static __always_inline int nc_cgroup4(struct bpf_sock_addr *ctx, enum nc_policy_hook hook,
				      __be32 source)
{
	const struct nc_policy_segment *first = nc_policy_in_force();
	__be32 address = ctx->user_ip4;
	__be16 port = ctx->user_port;
	struct nc_subject s = {};
	__u32 interface = 0;

	if (!first)
		return NC_LET_PASS;
	if (nc_goes_to_peer(ctx, hook)) {
		address = ctx->sk->dst_ip4;
		port = ctx->sk->dst_port;
	}
	if (!address)
		interface = nc_interface(ctx);
	nc_to_ipv4(&s, address, source, interface);
	nc_set_protocol(&s, ctx->protocol, ctx->sk ? ctx->sk->src_port : 0, bpf_ntohs(port));
	return nc_answer(nc_decide(first, &s, hook, false));
}

static __always_inline int nc_cgroup6(struct bpf_sock_addr *ctx, enum nc_policy_hook hook,
				      const __be32 *source)
{
	const struct nc_policy_segment *first = nc_policy_in_force();
	__be16 port = ctx->user_port;
	struct nc_subject s = {};
	__be32 address[4];
	__u32 interface = 0;

	if (!first)
		return NC_LET_PASS;
	address[0] = ctx->user_ip6[0];
	address[1] = ctx->user_ip6[1];
	address[2] = ctx->user_ip6[2];
	address[3] = ctx->user_ip6[3];
	if (nc_goes_to_peer(ctx, hook)) {
		address[0] = ctx->sk->dst_ip6[0];
		address[1] = ctx->sk->dst_ip6[1];
		address[2] = ctx->sk->dst_ip6[2];
		address[3] = ctx->sk->dst_ip6[3];
		port = ctx->sk->dst_port;
	}
	if (!address[3])
		interface = nc_interface(ctx);
	nc_to_ipv6(&s, address, source, interface);
	nc_set_protocol(&s, ctx->protocol, ctx->sk ? ctx->sk->src_port : 0, bpf_ntohs(port));
	return nc_answer(nc_decide(first, &s, hook, false));
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	return nc_cgroup4(ctx, NC_HOOK_CONNECT4, ctx->sk ? ctx->sk->src_ip4 : 0);
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	return nc_cgroup4(ctx, NC_HOOK_SENDMSG4, ctx->msg_src_ip4);
}

static __always_inline void nc_bound6(struct bpf_sock *sk, __be32 *source)
{
	if (!sk)
		return;
	source[0] = sk->src_ip6[0];
	source[1] = sk->src_ip6[1];
	source[2] = sk->src_ip6[2];
	source[3] = sk->src_ip6[3];
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	__be32 source[4] = {};

	nc_bound6(ctx->sk, source);
	return nc_cgroup6(ctx, NC_HOOK_CONNECT6, source);
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	__be32 source[4] = {};

	nc_bound6(ctx->sk, source);
	return nc_cgroup6(ctx, NC_HOOK_SENDMSG6, source);
}

/* ---- LSM layer ---- */

/* Address as the caller gave it; the kernel has copied it already. */
union nc_sockaddr {
	struct {
		__u16 family;
		__be16 port;
		union {
			__be32 ip4;
			struct {
				__be32 flow;
				__be32 ip6[4];
			};
		};
	};
	__u8 bytes[28];
};

static __always_inline bool nc_cgroup_layer_follows(const struct nc_policy_head *head,
						    struct sock___nc *sk, __u32 proto)
{
	return head->layers & 1 << NC_LAYER_CGROUP &&
	       (proto == NC_PROTO_TCP || proto == NC_PROTO_UDP) &&
	       nc_in_scope(sk->sk_cgrp_data.cgroup, head->scope_id, head->scope_level);
}

enum nc_asked {
	NC_ASKED,	/* the subject is filled in */
	NC_NOT_ASKED,	/* nothing that the policy is about */
	NC_DISCONNECTS, /* connect to AF_UNSPEC */
	NC_OTHER,	/* another family */
	NC_UNREADABLE,
};

static __noinline enum nc_asked nc_what(struct nc_subject *s, struct sock___nc *sk,
					const void *address, int length, bool connects)
{
	union nc_sockaddr to = {};
	__u32 protocol = sk->sk_protocol, family = sk->__sk_common.skc_family;
	__u32 interface = sk->__sk_common.skc_bound_dev_if;

	if (length < 2)
		return NC_NOT_ASKED; /* the kernel refuses it */
	if (length > (int)sizeof(to))
		length = sizeof(to);
	if (bpf_probe_read_kernel(&to, length & 31, address))
		return NC_UNREADABLE;
	if (family == NC_AF_SMC)
		protocol = NC_PROTO_SMC;
	if (to.family == NC_AF_UNSPEC) {
		if (connects)
			return family == NC_AF_INET || family == NC_AF_INET6 ? NC_DISCONNECTS :
									       NC_NOT_ASKED;
		/* IPv4 takes it for an IPv4 address; IPv6 does as if none was given. */
		if (family != NC_AF_INET)
			return NC_NOT_ASKED;
		to.family = NC_AF_INET;
	}
	if (to.family == NC_AF_INET && length >= 8) {
		if (!to.ip4 && !interface && sk->sk_type == NC_SOCK_DGRAM)
			bpf_probe_read_kernel(&interface, sizeof(interface),
					      &((struct inet_sock___nc *)sk)->uc_index);
		nc_to_ipv4(s, to.ip4, family == NC_AF_INET ? sk->__sk_common.skc_rcv_saddr : 0,
			   interface);
	} else if (to.family == NC_AF_INET6 && length >= 24) {
		__be32 source[4] = {};

		if (family == NC_AF_INET6)
			bpf_probe_read_kernel(source, sizeof(source),
					      &sk->__sk_common.skc_v6_rcv_saddr);
		nc_to_ipv6(s, to.ip6, source, interface);
	} else {
		return to.family == NC_AF_INET || to.family == NC_AF_INET6 ? NC_NOT_ASKED :
									     NC_OTHER;
	}
	nc_set_protocol(s, protocol, sk->__sk_common.skc_num, bpf_ntohs(to.port));
	return NC_ASKED;
}

/* A constant of its own: computed from the verdict, the verifier would not know its bounds. */
static __always_inline int nc_refusal(void)
{
	int refused = -NC_EPERM;

	nc_opaque(refused);
	return refused;
}

static __always_inline int nc_lsm(struct sock___nc *sk, const void *address, int length,
				  enum nc_policy_hook hook)
{
	const struct nc_policy_segment *first = nc_policy_in_force();
	struct nc_policy_stats *stats = nc_policy_stats_of_cpu();
	struct task_struct___nc *task = nc_task();
	const struct nc_policy_head *head;
	struct nc_subject s = {};

	if (!first || !stats)
		return 0;
	head = nc_head(first);
	if (!nc_in_scope(task->cgroups->dfl_cgrp, head->scope_id, head->scope_level))
		return 0;
	switch (nc_what(&s, sk, address, length, hook == NC_HOOK_LSM_CONNECT)) {
	case NC_ASKED:
		break;
	case NC_NOT_ASKED:
		return 0;
	case NC_DISCONNECTS:
		NC_COUNT(stats->disconnects);
		return 0;
	case NC_OTHER:
		NC_COUNT(stats->other_family);
		return 0;
	default:
		return nc_refusal();
	}
	if (nc_decide(first, &s, hook, nc_cgroup_layer_follows(head, sk, nc_protocol_of(&s))))
		return nc_refusal();
	return 0;
}

SEC("lsm/socket_connect")
int BPF_PROG(lsm_connect, struct socket *socket, struct sockaddr *address, int length)
{
	struct sock___nc *sk = ((struct socket___nc *)socket)->sk;

	if (!sk)
		return 0;
	return nc_lsm(sk, address, length, NC_HOOK_LSM_CONNECT);
}

SEC("lsm/socket_sendmsg")
int BPF_PROG(lsm_sendmsg, struct socket *socket, struct msghdr *message)
{
	struct sock___nc *sk = ((struct socket___nc *)socket)->sk;
	struct msghdr___nc *m = (void *)message;

	if (!sk || !m->msg_name)
		return 0;
	/* TCP takes the address only with Fast Open. */
	if ((sk->sk_protocol == NC_PROTO_TCP || sk->sk_protocol == NC_PROTO_MPTCP ||
	     sk->sk_protocol == NC_PROTO_SMC) &&
	    !(m->msg_flags & NC_MSG_FASTOPEN))
		return 0;
	return nc_lsm(sk, m->msg_name, m->msg_namelen, NC_HOOK_LSM_SENDMSG);
}

/* ---- what would happen ---- */

static __noinline void nc_take_question(struct nc_subject *s, const struct nc_policy_question *q)
{
	s->has = (q->family == 4) << NC_SUBJECT_DST | NC_SUBJECT_IS_KNOWN;
	s->word[NC_WORD_DST] = (__u64)bpf_ntohl(q->dst[0]) << 32 | bpf_ntohl(q->dst[1]);
	s->word[NC_WORD_DST + 1] = (__u64)bpf_ntohl(q->dst[2]) << 32 | bpf_ntohl(q->dst[3]);
	nc_set_protocol(s, q->proto, q->sport, q->dport);
	nc_set_owner(s, q->uid, q->gid);
	nc_set_exe(s, q->exe_dev, q->exe_inode);
	s->word[NC_WORD_CGROUP] = q->cgroup_row;
}

/* Judges a struct nc_policy_question by BPF_PROG_TEST_RUN, and returns the position. Nothing is
 * counted. XDP, since the hooks above take no test runs. */
SEC("xdp")
int probe(struct xdp_md *ctx)
{
	const struct nc_policy_question *q = (void *)(long)ctx->data;
	const struct nc_policy_segment *first = nc_policy_in_force();
	struct nc_subject s = {};

	if (!first || (void *)(q + 1) > (void *)(long)ctx->data_end)
		return NC_POLICY_FAULT;
	nc_take_question(&s, q);
	return nc_policy_classify(first, &s);
}

char LICENSE[] SEC("license") = "GPL";
