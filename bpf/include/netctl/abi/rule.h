/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Rules, counters, limits, sets and log events of the packet filters (xdp and tc): what the
 * datapath reads and writes, map by map. docs/pinned-maps.md says who may write which.
 */
#ifndef NETCTL_ABI_RULE_H
#define NETCTL_ABI_RULE_H

#include "packet.h"
#include "types.h"

/* ---- verdicts ---- */

enum nc_verdict {
	NC_VERDICT_PASS = 0,
	NC_VERDICT_DROP = 1,
	NC_VERDICT_TX = 2,	 /* xdp: back out of the interface */
	NC_VERDICT_REDIRECT = 3, /* to nc_action::target */
	NC_VERDICT_NEXT = 4,	 /* tc: leave it to the next program */
	NC_VERDICT_REJECT = 5,	 /* drop it, and answer its sender */
	/* xdp: answer it with a cookie if the kernel gives one, else let it pass */
	NC_VERDICT_SYNCOOKIE = 6,
	NC_VERDICTS = 7,
};

/* Why a verdict came about, for events and simulation. */
enum nc_reason {
	NC_REASON_RULE = 0,
	NC_REASON_DEFAULT = 1,	/* no rule matched */
	NC_REASON_UNPARSED = 2, /* nc_result::unparsed says why */
	NC_REASON_LIMIT = 3,	/* over the limit of the rule */
	NC_REASON_FAILED = 4,	/* the action could not be done: redirect target gone */
	NC_REASON_RATE = 5,	/* tc: over the rate of the rule */
};

/* ---- map `actions`: array, index = position of the rule among those of `rules`; behind them are the
 * actions of rules in `changes` ---- */

enum nc_action_flags {
	NC_ACTION_LOG = 1 << 0,
	NC_ACTION_LIMIT = 1 << 1,
	NC_ACTION_LIMIT_PER = 1 << 2,  /* an account for each address, or prefix of one */
	NC_ACTION_MARK = 1 << 3,       /* tc */
	NC_ACTION_PRIORITY = 1 << 4,   /* tc */
	NC_ACTION_DSCP = 1 << 5,       /* tc */
	NC_ACTION_MIRROR = 1 << 6,     /* tc */
	NC_ACTION_RATE = 1 << 7,       /* tc */
	NC_ACTION_TO_INGRESS = 1 << 8, /* tc: redirect into the target's ingress */
	NC_ACTION_LIMIT_DST = 1 << 9,  /* with PER: the destination's address, else the source's */
	NC_ACTION_LIMIT_DPORT = 1 << 10, /* with PER: and for each destination port */
	NC_ACTION_LIMIT_BYTES = 1 << 11, /* of bytes, else of packets */
	NC_ACTION_REJECT = 1 << 12,	 /* the verdict is NC_VERDICT_REJECT */
	NC_ACTION_OVER_ADD = 1 << 13,	 /* with PER: what is over the limit goes into a set */
	NC_ACTION_SYNCOOKIE = 1 << 14, /* the verdict is NC_VERDICT_SYNCOOKIE, or may come to be */
	NC_ACTION_OVER_SYNCOOKIE = 1 << 15, /* over the limit: a cookie, or it is dropped */
};

struct nc_action {
	__u32 rule_id;
	__u32 slot;    /* of the rule's counter: chunk slot / NC_COUNTER_CHUNK of `counters` */
	__u32 flags;   /* enum nc_action_flags */
	__u32 verdict; /* enum nc_verdict */
	__u32 target;  /* redirect: index into `devices` in xdp, ifindex in tc */
	__u32 mirror;  /* tc: ifindex */
	__u32 mark;
	__u32 mark_mask;
	__u32 priority;
	__u8 dscp;
	__u8 over_set; /* with OVER_ADD: set use that asks that set about the account's side */
	__u16 reserved;
	/* Time that one packet costs (GCRA's emission interval), or with LIMIT_BYTES 65536 bytes. */
	__u64 limit_interval_ns;
	__u64 limit_burst_ns; /* how far ahead of time packets may be (its tolerance) */
	__u64 rate_bytes;     /* tc: bytes a second */
	__u64 rate_burst;     /* tc: bytes that may leave at once; 0: as below */
	__be32 limit_mask4; /* with LIMIT_PER: which bits of an IPv4 address tell accounts apart */
	__be32 limit_mask6[4];
	__u32 over_ttl; /* with OVER_ADD: seconds that it stays there; 0: for ever */
};
NC_STATIC_ASSERT(sizeof(struct nc_action) == 96, "nc_action is ABI");

/* ---- map `counters`: array of maps, each a per-CPU array of NC_COUNTER_CHUNK counters ---- */

#define NC_COUNTER_CHUNK 1024
#define NC_COUNTER_CHUNKS 256 /* two lists of 131,072 rules: one in force, one to replace it */

struct nc_counter {
	__u64 packets; /* got the rule's action */
	__u64 bytes;
	__u64 over_packets; /* matched, but were over the rule's limit or rate */
	__u64 over_bytes;
};

/* ---- map `stats`: per-CPU array of one ---- */

struct nc_stats {
	__u64 packets; /* everything that the program saw */
	__u64 bytes;
	__u64 verdicts
		[NC_VERDICT_REJECT]; /* packets by final verdict; others in nc_rejects, nc_syncookies */
	__u64 default_packets;	     /* no rule matched */
	__u64 default_bytes;
	__u64 over_limit; /* dropped for being over a rule's limit */
	__u64 unparsed[NC_UNPARSED_REASONS];
	__u64 redirect_failed; /* target gone: dropped */
	__u64 limit_failed;    /* no room for the state of a limit: treated as over the limit */
	__u64 log_written;
	__u64 log_lost;	      /* ring buffer full */
	__u64 log_suppressed; /* above the log's rate */
	__u64 over_rate;      /* tc: dropped for being over a rule's rate */
	__u64 mirror_failed;  /* tc: copies that could not be sent; the packet itself goes on */
	__u64 rewrite_failed; /* tc: headers that could not be written: the packet goes on as it was */
};

/* ---- map `rejects`: per-CPU array of one; packets with NC_VERDICT_REJECT ---- */

struct nc_rejects {
	__u64 packets;
	/* Of these, those that got no answer: */
	__u64 silent;	  /* what must not be answered, as an ICMP error */
	__u64 suppressed; /* above the rate of ICMP errors */
	__u64 failed;	  /* the answer could not be made */
};

/* ---- map `over_adds`: per-CPU array of one; packets over the limit of a rule that adds them to a set ---- */

struct nc_over_adds {
	__u64 added;	 /* their address, or its prefix, is in the set since */
	__u64 there;	 /* was in it already */
	__u64 exception; /* not added: an exception of the set covers it */
	__u64 full;	 /* not added: no room */
	__u64 changing;	 /* not added: just then its element was being replaced */
};

/* ---- map `syncookies` (xdp): per-CPU array of one; packets with NC_VERDICT_SYNCOOKIE ---- */

struct nc_syncookies {
	__u64 packets;
	__u64 answered; /* of these, SYNs that got a cookie */
	__u64 refused;	/* SYNs to a listener for which the kernel gave none */
	__u64 failed;	/* the answer could not be made: dropped */
	__u64 dropped;	/* over a rule's limit, and got none: the others of these passed */
};

/* ---- maps `limits` (hash, rule-wide) and `limit_src` (LRU hash, one entry an address) ---- */

struct nc_limit_key {
	__u32 rule_id;
	__be32 address[4]; /* its leading bits; zero for rule-wide; IPv4 in [0] */
	__u16 dport;	   /* 0 unless there is an account for each */
	__u8 family;	   /* 4, 6, or 0: no address */
	__u8 reserved;
};
NC_STATIC_ASSERT(sizeof(struct nc_limit_key) == 24, "nc_limit_key is ABI");

struct nc_limit_state {
	__u64 arrival_ns; /* theoretical arrival time of GCRA, CLOCK_MONOTONIC */
};

/* ---- map `rates` (tc): hash, by rule id; one entry a rule with a rate ---- */

struct nc_rate_state {
	__u64 departure_ns; /* when all that was let through has left; CLOCK_MONOTONIC */
};

/* With departure times: how long a packet may wait; what would have to wait longer is dropped. */
#define NC_RATE_HORIZON_NS 500000000ull
/* A policer without a burst of its own lets half a second's worth through at once: a TCP sender that lost the
 * end of what it sent is silent for its retransmission timeout, 200 ms or more, and what the rate gives in
 * that time must not be lost. But at least 128 KiB: two of the largest packets that the stack handles as one. */
#define NC_POLICER_BURST_PART 2
#define NC_POLICER_BURST_LEAST (128u << 10)

/* `reject`: how many ICMP errors a point sends (RFC 4443, 2.4 f): the numbers of Linux's icmp_msgs_per_sec and
 * icmp_msgs_burst. */
#define NC_ERRORS_INTERVAL_NS 1000000u
#define NC_ERRORS_BURST_NS 50000000u
/* The most that an ICMP error quotes of the packet, from its IP header on. */
#define NC_ERROR_QUOTE 512

/* ---- map `rules`: array of records that hold the rules' canonical text ---- */

#define NC_RULE_TEXT_CHUNK 116

/* A rule takes as many consecutive records as its text needs; `more` is set on all but the last. */
struct nc_rule_text {
	__u32 rule_id;
	__u32 slot;   /* of its counter */
	__u16 length; /* bytes used of text */
	__u16 more;
	char text[NC_RULE_TEXT_CHUNK];
};
NC_STATIC_ASSERT(sizeof(struct nc_rule_text) == 128, "nc_rule_text is ABI");

/* How the rules of a point are looked up. */
enum nc_engine {
	NC_ENGINE_CROSSING = 0, /* at a cost that does not grow with them, but for `rules_apart` */
	NC_ENGINE_LINEAR = 1,	/* one after the other */
};

/* ---- map `point`: array of one; what this attachment point is set to ---- */

enum nc_point_flags {
	NC_POINT_EGRESS = 1 << 0,    /* tc */
	NC_POINT_DEPARTURE = 1 << 1, /* tc: rates are kept by departure time; else by dropping */
	NC_POINT_ETHER = 1 << 2,     /* tc: packets have a link header */
};

struct nc_point {
	__u32 abi_version;
	__u32 ifindex;
	__u64 netns_inode; /* of the namespace that the interface is in */
	__u64 generation;  /* of this point; one higher with each commit */
	__u32 default_verdict;
	__u32 unparsed_verdict;
	__u32 rules;   /* how many; their texts are in `rules` */
	__u32 records; /* used records of `rules` */
	__u32 next_rule_id;
	__u32 mode;	   /* XDP: 1 native, 2 generic; tc: 1 tcx, 2 clsact */
	__u32 log_rate;	   /* events a second at most */
	__u32 engine;	   /* enum nc_engine */
	__u32 rules_apart; /* of the crossing engine: looked up as bit vectors, 64 in a step */
	__u32 flags;	   /* enum nc_point_flags */
	__u64 table_bytes; /* of the engine's tables */
	/* tc with clsact: where the filter is. */
	__u32 tc_priority;
	__u32 tc_handle;
	__u32 changes; /* 0; netctl counts here what `changes` has */
	__u32 reserved;
};
NC_STATIC_ASSERT(sizeof(struct nc_point) == 88, "nc_point is ABI");

/* ---- sets: <root>/sets/NAME/{info,v4,v6,ports} ---- */

/* A set of names has the maps of a set of hosts, and those of names.h. */
enum nc_set_type { NC_SET_HOST = 1, NC_SET_CIDR = 2, NC_SET_PORT = 3, NC_SET_NAME = 4 };

/* Map `info`: array of one. */
struct nc_set_info {
	__u32 abi_version;
	__u32 type;	   /* enum nc_set_type */
	__u32 max_entries; /* of each family */
	__u32 number;	   /* of the set, in the maps below <root>/bases */
	__u32 unfolded;	   /* cidr: about how many elements netctl wrote since it last folded */
	__u32 turning;	   /* not 0: elements may have been told to turn (nc_set_flags) */
	__u32 counted;	   /* about how many live elements netctl knows of in the fuller family */
	__u32 reserved;
};

/* Keys: host v4 and v6 are plain addresses in network order; port is a __be16 port. */
struct nc_set_host4 {
	__be32 address;
};
struct nc_set_host6 {
	__be32 address[4];
};
struct nc_set_cidr4 {
	__u32 length; /* of the prefix in bits, 0-32, host order: what LPM tries want */
	__be32 address;
};
struct nc_set_cidr6 {
	__u32 length; /* 0-128 */
	__be32 address[4];
};
struct nc_set_port {
	__be16 port;
};

enum nc_set_flags {
	NC_SET_ABSENT = 1 << 0, /* an exception: what this element covers is not in the set */
	NC_SET_FOLD = 1 << 1,	/* netctl may move it from the live map into the base */
	/*
	 * netctl only. An element that turns: it becomes another one when its set comes to the turn whose number
	 * is in the upper 16 bits. So elements of several maps change with one write, of the set's number of
	 * turns (nc_set_word).
	 */
	NC_SET_COMES =
		1 << 2,	      /* until then there is no such element; then it is as the rest says */
	NC_SET_GOES = 2 << 2, /* until then it is as the rest says; then there is no such element */
	NC_SET_EXPIRES =
		3 << 2, /* likewise; then it is one that expired, which hides one of the base */
	NC_SET_STAYS = 4 << 2, /* likewise; then it is a plain member */
	NC_SET_TURNS = 7 << 2,
	NC_SET_NONE =
		1 << 5, /* never in a map: what nc_set_in_force() makes of one that is not there */
};
#define NC_SET_TURN_SHIFT 16

/* The value of an element; eight zero bytes are plain membership. */
struct nc_set_value {
	__u32 expires; /* second of CLOCK_BOOTTIME from which it no longer counts; 0 = never */
	__u32 flags;   /* enum nc_set_flags */
};
NC_STATIC_ASSERT(sizeof(struct nc_set_value) == 8, "nc_set_value is ABI");

/* An element that turns, as it is in a set that has come to turn `turn`. */
NC_INLINE struct nc_set_value nc_set_in_force(struct nc_set_value value, __u32 turn)
{
	__u32 turns = value.flags & NC_SET_TURNS;
	int turned = (__s16)(turn - (value.flags >> NC_SET_TURN_SHIFT)) >= 0;

	if (turns == NC_SET_COMES ? !turned : turns == NC_SET_GOES && turned)
		value.flags = NC_SET_NONE;
	else if (turns == NC_SET_EXPIRES && turned)
		value.expires = 1;
	else if (turns == NC_SET_STAYS && turned)
		value.expires = value.flags = 0;
	value.flags &= NC_SET_ABSENT | NC_SET_FOLD | NC_SET_NONE;
	return value;
}

/* How many different (field, set) pairs the rules of one point may name. */
#define NC_MAX_SET_USES 64

/* ---- map `events`: ring buffer of log events ---- */

#define NC_EVENT_HEADERS 128

struct nc_event {
	__u64 time_ns; /* CLOCK_BOOTTIME */
	__u64 generation;
	__u32 rule_id;
	__u32 ifindex;
	__u32 len;			/* of the frame */
	__u16 captured;			/* bytes used of headers */
	__u8 verdict;			/* enum nc_verdict */
	__u8 reason;			/* enum nc_reason */
	__u8 headers[NC_EVENT_HEADERS]; /* start of the frame */
};
NC_STATIC_ASSERT(sizeof(struct nc_event) == 160, "nc_event is ABI");

/* ---- map `result` of a simulating program (BPF_PROG_TEST_RUN): array of one ---- */

#define NC_NO_RULE 0xffffffffu

/* What a packet alone does not tell, and a simulation is told of all IP packets: written before the run. */
struct nc_told {
	__u32 has;    /* NC_HAS_CT, NC_HAS_CT_MARK: which of these there is */
	__u32 socket; /* enum nc_socket */
	__u32 ct;     /* enum nc_ct */
	__u32 ct_mark;
};

struct nc_result {
	__u32 position; /* of the rule in its list, or NC_NO_RULE */
	__u32 verdict;	/* enum nc_verdict */
	__u32 reason;	/* enum nc_reason */
	__u32 unparsed; /* enum nc_unparsed, if that is the reason */
	struct nc_told told;
	__u64 set_bits; /* membership, bit i = set use i */
	struct nc_packet packet;
};

#endif
