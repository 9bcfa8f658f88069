/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Redirection of local TCP connections: what its pinned maps hold. Host byte order where nothing
 * is said.
 */
#ifndef NETCTL_ABI_REDIRECT_H
#define NETCTL_ABI_REDIRECT_H

#include "types.h"

/* How many connections can be joined at the same time. */
#define NC_RD_SLOTS 4096

/* ---- map `rules`: array of two banks; nc_rd_conf::bank says which one is live ---- */

#define NC_RD_RULES 64
#define NC_RD_BANKS 2

enum nc_rd_action {
	NC_RD_END = 0,	 /* the list ends here */
	NC_RD_ALLOW = 1, /* connections that match may be redirected */
	NC_RD_DENY = 2,	 /* connections that match stay on TCP */
};

/*
 * The first rule that matches decides; a connection that no rule matches stays on TCP. `dst` and
 * `dport` are what the client connected to. `cgroup` and `exe` match if either end has them.
 */
struct nc_rd_rule {
	__u32 id;
	__u8 action;	    /* enum nc_rd_action */
	__u8 family;	    /* of dst: 4, 6; 0 any address */
	__u8 prefix_length; /* of dst in bits */
	__u8 reserved;
	__u16 dport_low; /* inclusive range; 0-65535 is any */
	__u16 dport_high;
	__be32 dst[4];	  /* IPv4, and IPv6-mapped IPv4, in [0]; bits behind the prefix are zero */
	__u32 exe_device; /* of the executable's file, as the kernel counts: major << 20 | minor */
	__u64 exe_inode;  /* 0: any executable */
	__u64 cgroup;	  /* inode number of a cgroup v2 directory, itself or below; 0: any */
};
NC_STATIC_ASSERT(sizeof(struct nc_rd_rule) == 48, "nc_rd_rule is ABI");

/* ---- map `to`: array of two banks; nc_rd_conf::to_bank says which one is live ---- */

#define NC_RD_TO_RULES 64

/* To how many targets the datagrams of one socket go at a time, so that answers are told from whom they asked. */
#define NC_RD_TO_SENT 16

/*
 * connect(), or a datagram of a socket that is not connected, to `dst` and a port of `dport` goes to
 * the target instead; the first match decides.
 */
struct nc_rd_to {
	__u32 id;
	__u8 used;	    /* 0: the list ends here */
	__u8 family;	    /* of dst and target: 4 or 6 */
	__u8 prefix_length; /* of dst in bits */
	__u8 protocol;	    /* 6 TCP, 17 UDP, 0 both */
	__u16 dport_low;    /* inclusive range; 0-65535 is any */
	__u16 dport_high;
	__u16 target_port; /* host byte order */
	__u8 targets; /* how many it has in `to_targets`; the first is here, too. 0: none but that */
	__u8 how;     /* enum nc_rd_to_how */
	__be32 dst[4]; /* as in nc_rd_rule */
	__be32 target[4];
	__u64 cgroup; /* as in nc_rd_rule, of the process that connects */
};
NC_STATIC_ASSERT(sizeof(struct nc_rd_to) == 56, "nc_rd_to is ABI");

enum nc_rd_to_how {
	/* The same target for the same cgroup and network namespace; else in turn. */
	NC_RD_TO_BY_SOURCE = 1 << 0,
	/* Its targets are in `to_health`, and nothing new goes to those that are down. */
	NC_RD_TO_ASKED = 1 << 1,
	/* With all of them down it goes where it asked for; else it is refused. */
	NC_RD_TO_OPEN = 1 << 2,
};

/* ---- map `to_targets`: hash by nc_rd_to_target_key; all targets of the rules in `to` ---- */

#define NC_RD_TO_TARGETS 16 /* of a rule, at most */

struct nc_rd_to_target_key {
	__u32 rule;   /* nc_rd_to::id */
	__u32 number; /* in the order of the rule's text, from 0 */
};

struct nc_rd_to_target {
	__be32 address[4]; /* as nc_rd_to::target */
	__u16 port;	   /* host byte order */
	__u16 weight;	   /* 1 and more */
	__u32 turn;	   /* of the first target: how often one was chosen in turn */
	__u64 connections; /* that came here */
	__u64 datagrams;   /* of sockets that are not connected */
};
NC_STATIC_ASSERT(sizeof(struct nc_rd_to_target) == 40, "nc_rd_to_target is ABI");

/* ---- map `to_health`: hash by nc_rd_to_target_key; targets that are asked whether they are up ---- */

enum nc_rd_to_state {
	NC_RD_TO_UNKNOWN = 0, /* nobody has asked it: taken to be up */
	NC_RD_TO_UP = 1,
	NC_RD_TO_DOWN = 2, /* gets no new connections, and no datagrams */
};

/* Written by `netctl redirect run` alone. Times are CLOCK_MONOTONIC, in nanoseconds. */
struct nc_rd_to_health {
	__u32 state;	/* enum nc_rd_to_state */
	__u32 in_a_row; /* how often it was asked in vain since it last answered */
	__u32 error;	/* errno of the last time; 0 if it answered */
	__u32 answer;	/* status by which it said no, by HTTP; else 0 */
	__u64 since_ns; /* that it is in this state */
	__u64 asked_ns; /* the last time */
	__u64 asked;	/* how often */
	__u64 unanswered;
};
NC_STATIC_ASSERT(sizeof(struct nc_rd_to_health) == 48, "nc_rd_to_health is ABI");

/* ---- map `to_failed`: hash by rule id; what came when all targets of such a rule were down ---- */

struct nc_rd_to_failed {
	__u64 refused; /* connections and datagrams */
	__u64 opened;  /* the same, that went where they asked for */
};
NC_STATIC_ASSERT(sizeof(struct nc_rd_to_failed) == 16, "nc_rd_to_failed is ABI");

/* ---- map `to_mine`: storage of sockets whose connect() went to a target ---- */

/* An address and port as connect() has them. */
struct nc_rd_name {
	__u32 family; /* 4, 6; IPv6-mapped IPv4 is 4 */
	__be16 port;
	__u16 mapped; /* it was given as an IPv6-mapped address */
	__be32 ip[4];
};

struct nc_rd_to_way {
	struct nc_rd_name original; /* that was asked for */
	struct nc_rd_name target;
};

struct nc_rd_to_mine {
	struct nc_rd_to_way way;
	__u32 rule;	   /* nc_rd_to::id */
	__u32 number;	   /* of the target, as in nc_rd_to_target_key */
	__u32 pid;	   /* of the process that connected */
	__u32 leave_alone; /* set from outside: the socket's connect() is not rewritten */
	char process[16];
};
NC_STATIC_ASSERT(sizeof(struct nc_rd_to_mine) == 80, "nc_rd_to_mine is ABI");

/* ---- map `to_stats`: per-CPU array of one ---- */

struct nc_rd_to_stats {
	__u64 datagrams; /* of sockets that are not connected, that went to a target */
	__u64 forgotten; /* targets of a socket that made room for another: a late answer of theirs is told to
			    be from the target */
};
NC_STATIC_ASSERT(sizeof(struct nc_rd_to_stats) == 16, "nc_rd_to_stats is ABI");

/* ---- map `conf`: array of one ---- */

enum nc_rd_flags {
	NC_RD_ALLOW_BLOCKING = 1 << 0, /* sockets without O_NONBLOCK may join too */
	NC_RD_DRAINING = 1 << 1,       /* being disabled: nothing joins any more */
	NC_RD_FORCED = 1 << 2,	       /* enabled although a case of the self-test failed */
	/*
	 * This kernel's FIONREAD does not count what TCP brings to a joined socket: a connection that
	 * would have to pass a message leaves instead.
	 */
	NC_RD_NEVER_PASS = 1 << 3,
	NC_RD_CROSS_NETNS = 1 << 4, /* ends may be in different network namespaces */
	/* This kernel's FIONREAD does not count redirected bytes: programs behind ioctl() add them. */
	NC_RD_MENDS_FIONREAD = 1 << 5,
};

struct nc_rd_conf {
	__u32 abi_version;
	__u32 bank;  /* live bank of `rules` */
	__u32 flags; /* enum nc_rd_flags */
	__u32 next_rule_id;
	__u64 cgroup;	  /* inode number of the cgroup that redirection is enabled on */
	__u64 generation; /* of the rules; one higher with each commit */
	__u32 to_bank;	  /* live bank of `to` */
	__u32 next_to_id;
};
NC_STATIC_ASSERT(sizeof(struct nc_rd_conf) == 40, "nc_rd_conf is ABI");

/* ---- why a connection is on TCP ---- */

enum nc_rd_reason {
	NC_RD_REASON_NONE = 0,
	/* never joined */
	NC_RD_REASON_STREAM = 1,  /* bytes flow one way, or in large pieces */
	NC_RD_REASON_LOST = 2,	  /* the ring buffer was full: no joiner listens */
	NC_RD_REASON_NO_PEER = 3, /* the other end is not on this host, or not in this namespace; or
				      addresses were translated on the way */
	NC_RD_REASON_IDENTITY = 4, /* sequence numbers do not agree: not each other's peer */
	NC_RD_REASON_OUTSIDE = 5,  /* an end is not in the cgroup, or was there before `enable` */
	NC_RD_REASON_RULE = 6, /* no rule allows it (by cgroup or executable), or one denies it */
	NC_RD_REASON_BLOCKING = 7, /* an end is a blocking socket */
	NC_RD_REASON_OPTION = 8,   /* an end has an option that could not be honoured */
	NC_RD_REASON_ULP = 9,	   /* kTLS, MPTCP, or another user of the socket (psock) */
	NC_RD_REASON_CLOSING = 10, /* an end is not established */
	NC_RD_REASON_FULL = 11,	   /* all NC_RD_SLOTS are in use */
	NC_RD_REASON_KERNEL = 12,  /* the kernel refused to put a socket into the map */
	NC_RD_REASON_AGAIN = 13, /* joined, or to be announced by the other end too; not counted */
	NC_RD_REASON_DISABLED = 14, /* redirection is being disabled */
	/* joined, and left */
	NC_RD_REASON_RUN = 15,	   /* many messages one way without one the other way */
	NC_RD_REASON_BIG = 16,	   /* a large message */
	NC_RD_REASON_AHEAD = 17,   /* the reader does not keep up */
	NC_RD_REASON_CLOSED = 18,  /* an end was closed, or shut down */
	NC_RD_REASON_SET = 19,	   /* an option was set that could not be honoured */
	NC_RD_REASON_TURNED = 20,  /* an end became a blocking socket */
	NC_RD_REASON_FAILED = 21,  /* the kernel's redirect helper failed; the message was passed */
	NC_RD_REASON_DRAINED = 22, /* `disable`, or a change of the rules */
	NC_RD_REASON_BUSY =
		23, /* never at rest when it was to join; or, with NC_RD_NEVER_PASS, when
				   its first message came */
	NC_RD_REASONS = 24,
};

/* ---- map `stats`: per-CPU array of one ---- */

struct nc_rd_stats {
	__u64 announced; /* candidates handed to the joiner */
	__u64 joined;
	__u64 redirected_messages;
	__u64 redirected_bytes;
	__u64 passed_messages; /* of joined connections, by TCP */
	__u64 passed_bytes;
	__u64 turns;		     /* directions that turned from TCP to redirection */
	__u64 on_tcp[NC_RD_REASONS]; /* connections refused or left, by enum nc_rd_reason */
	__u64 removed;		     /* ends taken out of the map */
	__u64 removed_by_timer;	     /* of those, with no callback of the connection's own */
	__u64 helper_failed;	     /* storage, timer, or deletion failed */
	__u64 rewritten;	     /* calls of connect() that got another address by `to` */
	__u64 loops;	   /* that would have come back to the process itself, and did not */
	__u64 tried_again; /* times that a connection was not at rest when it was to join */
};
NC_STATIC_ASSERT(sizeof(struct nc_rd_stats) == 296, "nc_rd_stats is ABI");

/* ---- a connection, as one of its ends sees it ---- */

struct nc_rd_end {
	__u32 family; /* 4 or 6; IPv6-mapped IPv4 is 4 */
	__u16 local_port;
	__u16 remote_port;
	__be32 local[4]; /* IPv4 in [0], the rest zero */
	__be32 remote[4];
};
NC_STATIC_ASSERT(sizeof(struct nc_rd_end) == 40, "nc_rd_end is ABI");

/* ---- map `events`: ring buffer, read by the joiner ---- */

struct nc_rd_event {
	__u64 netns; /* cookie of the network namespace */
	struct nc_rd_end end;
};
NC_STATIC_ASSERT(sizeof(struct nc_rd_event) == 48, "nc_rd_event is ABI");

/*
 * The other kind of record, told by its size: bytes went by TCP to a reader that has redirected
 * ones unread. It may take the end of these for the end of all, so the joiner has rd_nudge wake it
 * once it has read them.
 */
struct nc_rd_behind {
	__u64 key;  /* of the pair */
	__u32 slot; /* in `pairs` */
	__u32 end;  /* that reads: 0 or 1 */
};
NC_STATIC_ASSERT(sizeof(struct nc_rd_behind) == 16, "nc_rd_behind is ABI");

/*
 * ---- map `request`: array; argument and answer of rd_join and rd_nudge in [0], of rd_leave in [1] and
 * [2], as the mark of its packet says. The joiner is the only user of the first and the last, who holds
 * the root's lock of the other ----
 */

#define NC_RD_REQUESTS 3

enum nc_rd_nudged {
	NC_RD_NUDGE_GONE = 0,	/* no such socket any more */
	NC_RD_NUDGE_UNREAD = 1, /* not yet: redirected bytes are unread */
	NC_RD_NUDGE_DONE = 2,
	NC_RD_NUDGE_AGAIN = 3, /* woken; and to be once more when it is out of the map */
};

struct nc_rd_request {
	struct nc_rd_event event; /* rd_join: the connection that was announced */
	__u64 peer_netns;	  /* rd_join: cookie of the other end's network namespace */
	__s32 peer_nsid; /* rd_join: its number in the announced end's; -1 if it is that itself */
	__u32 tentative; /* rd_join: NO_PEER and IDENTITY are not the last word: not counted */
	__u32 slot;	 /* rd_join: where to look for room, and what was taken; else which one */
	__u32 reason;	 /* rd_join: NC_RD_REASON_NONE if joined; rd_nudge: the end that reads */
	__u32 state;	 /* rd_leave: state afterwards; rd_join: not 0 if this is the last try;
			 rd_nudge: enum nc_rd_nudged */
	__s32 error;	 /* errno of the kernel's refusal, negative, if that is the reason */
	__u32 final;	 /* rd_join: NC_RD_REASON_BUSY is the last word; else try again later */
	__u32 unheard; /* rd_join: bit i: bytes came to end i while it was in the map for a moment,
			    and its reader may not know; it is to be woken (rd_nudge) */
	__u64 key;     /* rd_join: of the pair that was made, be it for that moment */
};
NC_STATIC_ASSERT(sizeof(struct nc_rd_request) == 96, "nc_rd_request is ABI");

/* ---- map `pairs`: array of NC_RD_SLOTS; joined connections ---- */

enum nc_rd_state {
	NC_RD_FREE = 0,
	NC_RD_JOINED = 1,
	NC_RD_LEAVING =
		2, /* until nothing redirected is unread at either end; then by TCP for good */
};

/*
 * The gate of a pair: which directions are redirected, until it is closed for both at once, and for
 * good. Changed by atomic operations only. Whoever wants to close it says so, looks whether nothing
 * is unread or on its way, and closes it if nobody sent meanwhile. Behind the bits: how often that
 * was tried, which tells the tries apart.
 */
enum nc_rd_gate {
	NC_RD_TURNED_0 = 1 << 0, /* what end 0 sends is redirected */
	NC_RD_TURNED_1 = 1 << 1,
	NC_RD_CLOSING = 1 << 2, /* somebody is looking; each message takes this away */
	NC_RD_CLOSED = 1 << 3, /* all goes by TCP, and nothing redirected is unread or on its way */
	NC_RD_GATE_TRY = 1 << 4,
};

/* A process that sent on an end, as seen at its first message after joining. */
struct nc_rd_process {
	__u32 pid; /* 0: not seen yet */
	__u32 exe_device;
	__u64 exe_inode;
	char name[16];
};

/* Member [0] is the end in `end`, member [1] its peer. */
struct nc_rd_pair {
#ifdef __bpf__
	struct bpf_timer timer;
#else
	__u64 timer[2]; /* the kernel's; reads as zero */
#endif
	__u64 key;	 /* serial number of the joining; tells apart users of a slot */
	__u64 state;	 /* enum nc_rd_state */
	__u64 busy;	 /* its counters go to the totals just now */
	__u64 joined_ns; /* CLOCK_MONOTONIC */
	__u64 freed_ns;
	__u64 netns;	  /* cookies of the namespaces of [0] and [1]: the same but with */
	__u64 peer_netns; /* NC_RD_CROSS_NETNS */
	struct nc_rd_end end;
	struct nc_rd_process process[2];
	__u64 redirected_messages[2]; /* sent by this end */
	__u64 redirected_bytes[2];
	__u64 passed_messages[2];
	__u64 passed_bytes[2];
	__u64 rules; /* bit i: rule i of the bank matches as far as known without executables */
	__u64 generation; /* of these rules */
	__u32 reason;	  /* for leaving */
	__u32 judged;	  /* rules were asked again with the executables known */
	/* the rest is the programs' own */
	__u64 socket[2];
	__u64 psock[2];
	__u64 file_flags[2];
	__u32 last;	  /* end that sent last */
	__u32 run;	  /* messages that it sent since */
	__u32 ahead[2];	  /* bytes redirected since the reader's queue was seen empty */
	__u32 limit[2];	  /* and how many may be */
	__u64 gate;	  /* enum nc_rd_gate */
	__u32 written[2]; /* write_seq of this end's TCP when it joined */
	__u32 passed[2]; /* messages passed since joining; at least one proves an older recv over */
	__u32 tries;	 /* of the timer */
	__u32 behind;	 /* bit i: bytes came to end i by TCP that its reader may not hear of */
};
NC_STATIC_ASSERT(sizeof(struct nc_rd_pair) == 368, "nc_rd_pair is ABI");

/* ---- map `recent`: LRU hash by nc_rd_event; connections that are on TCP, and why ---- */

struct nc_rd_recent {
	__u32 reason; /* enum nc_rd_reason */
	__u32 was_joined;
	struct nc_rd_process process[2];
	__u64 redirected_messages[2];
	__u64 redirected_bytes[2];
};
NC_STATIC_ASSERT(sizeof(struct nc_rd_recent) == 104, "nc_rd_recent is ABI");

#endif
