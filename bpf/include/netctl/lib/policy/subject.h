/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who asks for what: the subject of a decision, and what is known of where it goes to.
 */
#ifndef NETCTL_LIB_POLICY_SUBJECT_H
#define NETCTL_LIB_POLICY_SUBJECT_H

#include <netctl/lib/policy/tables.h>

/* Who asks for what. Small, like all that is on the stack: sets need most of it. */
struct nc_subject {
	union {
		__u64 word[NC_SUBJECT_WORDS]; /* enum nc_policy_word */
		struct {
			__u64 words[NC_SUBJECT_WORDS - 1];
			__u64 has; /* 1 << enum nc_policy_input; for DST: it is IPv4 */
		};
	};
};

/* In `has`: who asks stands in the subject already. */
#define NC_SUBJECT_IS_KNOWN (1 << NC_SUBJECTS)
/* It goes to an address of this host's own that only routing knows: no rule can be asked. */
#define NC_SUBJECT_GOES_ASTRAY (1 << (NC_SUBJECTS + 1))

/*
 * 0.0.0.0 is this host: the address that the socket is bound to, else loopback; but where an interface is
 * given, one of that one's addresses (ip_route_output_key_hash_rcu()).
 */
static __always_inline void nc_to_ipv4(struct nc_subject *s, __be32 address, __be32 source,
				       __u32 interface)
{
	if (!address && !source && interface)
		s->has |= NC_SUBJECT_GOES_ASTRAY;
	s->has |= 1 << NC_SUBJECT_DST;
	s->word[NC_WORD_DST] = (__u64)bpf_ntohl(address ?: source ?: bpf_htonl(0x7f000001)) << 32;
}

/* A mapped address is IPv4. :: is this host, by IPv4 if the socket is bound to a mapped address. */
static __always_inline void nc_to_ipv6(struct nc_subject *s, const __be32 *address,
				       const __be32 *source, __u32 interface)
{
	bool mapped = !source[0] && !source[1] && source[2] == bpf_htonl(0xffff);

	if (!address[0] && !address[1] && address[2] == bpf_htonl(0xffff)) {
		nc_to_ipv4(s, address[3], mapped ? source[3] : 0, interface);
		return;
	}
	if (!address[0] && !address[1] && !address[2] && !address[3]) {
		if (mapped)
			nc_to_ipv4(s, 0, 0, 0);
		else
			s->word[NC_WORD_DST + 1] = 1;
		return;
	}
	s->word[NC_WORD_DST] = (__u64)bpf_ntohl(address[0]) << 32 | bpf_ntohl(address[1]);
	s->word[NC_WORD_DST + 1] = (__u64)bpf_ntohl(address[2]) << 32 | bpf_ntohl(address[3]);
}

#define NC_PROTO_TCP 6
#define NC_PROTO_UDP 17
#define NC_PROTO_SMC 256
#define NC_PROTO_MPTCP 262

static __always_inline __u32 nc_protocol_of(const struct nc_subject *s)
{
	return s->word[NC_WORD_SERVICE] >> 24 & 0xff;
}

static __always_inline void nc_set_protocol(struct nc_subject *s, __u32 protocol, __u16 sport,
					    __u16 dport)
{
	__u64 word;

	/* Both speak TCP to the other side. */
	if (protocol == NC_PROTO_MPTCP || protocol == NC_PROTO_SMC)
		protocol = NC_PROTO_TCP;
	word = (__u64)(protocol > 255 ? 255 : protocol) << 24;
	switch (protocol) {
	case NC_PROTO_TCP:
	case NC_PROTO_UDP:
	case 33:  /* DCCP */
	case 132: /* SCTP */
	case 136: /* UDP-Lite */
		word |= (__u64)dport << 48 | (__u64)sport << 32;
		s->has |= 1 << NC_SUBJECT_DPORT | (__u64) !!sport << NC_SUBJECT_SPORT;
	}
	/* Unknown to the verifier, which would look at all that follows once for each of these ways. */
	s->word[NC_WORD_SERVICE] = word ^ nc_unknown;
	s->has ^= nc_unknown;
}

#endif
