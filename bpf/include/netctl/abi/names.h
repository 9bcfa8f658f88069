/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Sets of type name: what is in <root>/sets/NAME besides the maps of addresses, which are those of a set of
 * hosts. Two programs at the root cgroup read the questions and answers of DNS, and write the addresses of
 * wanted names into these.
 */
#ifndef NETCTL_ABI_NAMES_H
#define NETCTL_ABI_NAMES_H

#include "types.h"

/* Bytes of a name as it is on the wire (RFC 1035, 3.1), without the root's empty label at its end. */
#define NC_NAME_BYTES 254

/* ---- map `names`: hash; the names that are wanted ---- */

struct nc_name_key {
	__u64 hash;  /* nc_name_hash() of the name */
	__u32 below; /* 0: this name; 1: all names below it, which is what `*.NAME` says */
	__u32 reserved;
};
NC_STATIC_ASSERT(sizeof(struct nc_name_key) == 16, "nc_name_key is ABI");

struct nc_name {
	__u8 length;		      /* bytes used of `wire` */
	__u8 wire[NC_NAME_BYTES + 1]; /* labels, each behind its length; in lower case */
};
NC_STATIC_ASSERT(sizeof(struct nc_name) == 256, "nc_name is ABI");

/* FNV-1a, from the last byte to the first, so that one pass tells the hashes of all names above a name. */
#define NC_NAME_HASH_START 14695981039346656037ull
NC_INLINE __u64 nc_name_hash_on(__u64 hash, __u8 byte)
{
	return (hash ^ byte) * 1099511628211ull;
}

/* ---- map `resolvers`: hash; whose answers are believed ---- */

#define NC_NAME_RESOLVERS 32

struct nc_resolver {
	__be32 address[4]; /* IPv4 in [0], the rest zero */
	__u32 family;	   /* 4 or 6 */
};
NC_STATIC_ASSERT(sizeof(struct nc_resolver) == 20, "nc_resolver is ABI");

enum nc_resolver_flags {
	/* An address of this host's own: its answers are read where its socket sends them, and nothing that only
	 * looks as if it came from there. Those of others must come by another interface than loopback. */
	NC_RESOLVER_LOCAL = 1 << 0,
};

/* ---- map `settings`: array of one ---- */

struct nc_name_settings {
	__u32 abi_version;
	__u32 netns;   /* inode of the network namespace whose traffic is read */
	__u32 grace;   /* seconds that an address stays beyond its time to live */
	__u32 longest; /* a longer time to live is taken for this; seconds */
	__u32 places;  /* of addresses, both families together */
	__u32 reserved;
};
NC_STATIC_ASSERT(sizeof(struct nc_name_settings) == 24, "nc_name_settings is ABI");

/* ---- map `learnt`: hash; where the addresses come from. How long they count is in v4 and v6 ---- */

struct nc_name_address {
	__be32 address[4]; /* IPv4 in [0], the rest zero */
	__u32 family;	   /* 4 or 6 */
};
NC_STATIC_ASSERT(sizeof(struct nc_name_address) == 20, "nc_name_address is ABI");

struct nc_learnt {
	__u32 since;	     /* second of CLOCK_BOOTTIME in which it was first told */
	__u32 told;	     /* and last */
	struct nc_name name; /* that was asked for when it was first told */
};
NC_STATIC_ASSERT(sizeof(struct nc_learnt) == 264, "nc_learnt is ABI");

/* ---- map `asked`: LRU hash; questions about wanted names that wait for an answer ---- */

#define NC_NAME_ASKED 4096

struct nc_asked_key {
	__be32 resolver[4];
	__be32 local[4];
	__be16 port; /* that asked */
	__be16 id;
	__u32 family; /* 4 or 6 */
};
NC_STATIC_ASSERT(sizeof(struct nc_asked_key) == 40, "nc_asked_key is ABI");

struct nc_asked {
	__u64 question; /* hash of the names, types and classes */
	__u32 second;	/* of CLOCK_BOOTTIME */
	__u32 reserved;
};

/* Who is answered later than this has asked again, or given up. */
#define NC_NAME_PATIENCE 60

/* ---- map `name_stats`: per-CPU array of one ---- */

struct nc_name_stats {
	__u64 questions; /* about wanted names */
	__u64 answers;	 /* to them that were believed */
	__u64 learnt;	 /* addresses that came */
	__u64 refreshed; /* that were there already */
	__u64 unasked; /* answers about wanted names that nobody asked for: by port, id or question */
	__u64 astray;	 /* that came by another way than the resolver's */
	__u64 truncated; /* believed, but the rest is to be asked for over TCP, which is not read */
	__u64 cut;	 /* had more than NC_DNS_BYTES or NC_DNS_RECORDS: the rest was not read */
	__u64 unreadable; /* questions or answers of believed resolvers that contradict themselves */
	__u64 full;	  /* addresses for which there was no room */
	__u64 failed;	  /* messages that could not be read for want of a place to do so */
};
NC_STATIC_ASSERT(sizeof(struct nc_name_stats) == 88, "nc_name_stats is ABI");

/* What is read of a message. */
#define NC_DNS_BYTES 4096
#define NC_DNS_QUESTIONS 4
#define NC_DNS_RECORDS 64
#define NC_DNS_HOPS 64 /* pointers of one name */

#endif
