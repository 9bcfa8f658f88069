// SPDX-License-Identifier: GPL-2.0-only
/*
 * TLS handshakes, from what processes send and receive over TCP: taken where the socket layer reports how much it moved, as
 * http_syscall.bpf.c does. A socket is looked at from the first call on that begins with a ClientHello, in either
 * direction; the headers of records are followed, and of those that may tell something the content is handed out, too.
 * When application data has passed for a while, the programs look no further.
 */
#include <vmlinux.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include <netctl/abi/trace_tls.h>
#include <netctl/lib/call_source.h>
#include <netctl/lib/trace.h>

char LICENSE[] SEC("license") = "GPL";

#define PIECE_MAX 16000 /* of one record of the ring */
#define STEPS 4096	/* buffers and records of TLS in one call */
#define HEADER 5
#define RECORD_MAX (16384 + 2048) /* RFC 5246 6.2.3 */
#define APPLICATION_DATA 23
/* Records of application data behind which the handshake is over: as many together, if both sides sent some, as a server's
 * part of a handshake is of several of them, too; or as many of one side, which may be early data. */
#define SEALED_BOTH 16
#define SEALED_ONE 200

struct half {
	__u64 position;
	__u32 wanted;	 /* of the record under way, the bytes that come next and are handed out */
	__u32 rest;	 /* and those behind them that are not */
	__u8 header[16]; /* more than it has, for the verifier */
	__u8 have;	 /* of the header of the next record */
	__u8 sealed;	 /* records of application data, up to SEALED_ONE */
	__u8 reserved[6];
};

struct conn {
	struct half half[2];
	__u64 cookie;
	struct nc_trace_owner owner;
	__u8 over;
	__u8 reserved[3];
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct conn);
} conns SEC(".maps");

/* Where a record is put together. One for each program and CPU: a program is not entered twice. */
struct scratch {
	struct source source;
	__u64 buffer, available;
	__u32 index; /* of the buffer that comes next */
	__u32 left;  /* of the call, bytes that were not looked at yet */
	__u32 filled;
	__u32 gap; /* bytes behind those that are not wanted */
	struct nc_tls_record record;
	__u8 bytes[2 * PIECE_MAX + 64];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 6);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

struct walk {
	struct scratch *scratch;
	struct conn *conn;
	struct half *half;
};

static __always_inline void submit(void *record, __u32 size)
{
	struct nc_trace_counters *count = nc_trace_count();

	if (!count)
		return;
	if (bpf_ringbuf_output(&events, record, size, BPF_RB_NO_WAKEUP) != 0)
		count->lost++;
	else
		count->sent++;
}

static __always_inline void flush(struct scratch *scratch, __u32 more)
{
	struct nc_tls_record *record = &scratch->record;
	__u32 size = scratch->filled;

	record->captured = size;
	record->length = size + scratch->gap + more;
	barrier_var(size);
	if (size > PIECE_MAX)
		size = PIECE_MAX;
	submit(record, sizeof(*record) + size);
	record->position += record->length;
	scratch->filled = scratch->gap = 0;
}

/* Goes on with the next buffer; 1 if there is none. */
static __always_inline long next_buffer(struct scratch *scratch)
{
	struct iovec vector;

	if (scratch->index >= scratch->source.iovs ||
	    bpf_probe_read_user(&vector, sizeof(vector),
				(struct iovec *)scratch->source.iov + scratch->index))
		return 1;
	scratch->index++;
	scratch->buffer = (__u64)vector.iov_base;
	scratch->available = vector.iov_len;
	return 0;
}

/* A record's header is there. */
static __always_inline void begin_record(struct conn *conn, struct half *half)
{
	__u32 type = half->header[0], length = half->header[3] << 8 | half->header[4];

	if (type < 20 || type > 24 || half->header[1] != 3 || length > RECORD_MAX) {
		conn->over = 1;
		return;
	}
	half->wanted = type < APPLICATION_DATA ? length : 0;
	half->rest = length - half->wanted;
	if (type != APPLICATION_DATA)
		return;
	if (half->sealed < SEALED_ONE)
		half->sealed++;
	if (half->sealed == SEALED_ONE ||
	    (conn->half[0].sealed && conn->half[1].sealed &&
	     conn->half[0].sealed + conn->half[1].sealed >= SEALED_BOTH))
		conn->over = 1;
}

/* A record's header, or what is wanted of the record, into the scratch, or past what is not. */
static long record_step(__u32 step, struct walk *walk)
{
	struct scratch *scratch = walk->scratch;
	struct half *half = walk->half;
	__u32 filled, take, have;

	if (!scratch->left || walk->conn->over)
		return 1;
	if (!scratch->available)
		return next_buffer(scratch);
	take = scratch->left;
	if (take > scratch->available)
		take = scratch->available;
	if (!half->wanted && half->rest) {
		if (take > half->rest)
			take = half->rest;
		half->rest -= take;
		scratch->gap += take;
		goto passed;
	}
	if (scratch->gap || scratch->filled >= PIECE_MAX)
		flush(scratch, 0);
	have = half->have & 7;
	if (half->wanted) {
		if (take > half->wanted)
			take = half->wanted;
	} else if (take > HEADER - have) {
		take = HEADER - have;
	}
	filled = scratch->filled;
	/* 6.1's verifier needs the very register that is compared. */
	barrier_var(filled);
	if (filled >= PIECE_MAX)
		return 1;
	if (take > PIECE_MAX - filled)
		take = PIECE_MAX - filled;
	asm volatile("" : "+r"(take));
	if (take > PIECE_MAX)
		return 1;
	if (bpf_probe_read_user(&scratch->bytes[filled], take, (void *)scratch->buffer))
		return 1;
	if (half->wanted) {
		half->wanted -= take;
	} else {
		__u32 part = take & 7;

		barrier_var(have);
		have &= 7;
		barrier_var(part);
		part &= 7;
		if (bpf_probe_read_user(&half->header[have], part, (void *)scratch->buffer))
			return 1;
		half->have = have + part;
		if (half->have >= HEADER) {
			half->have = 0;
			begin_record(walk->conn, half);
		}
	}
	scratch->filled = filled + take;
passed:
	scratch->left -= take;
	scratch->buffer += take;
	scratch->available -= take;
	return 0;
}

/* Other calls than find_usual_source() knows. Of several messages in one call, the first. */
__noinline int find_message(struct source *source)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct user_msghdr header;
	struct pt_regs *regs;
	__u64 number;

	if (!source || task->flags & (PF_KTHREAD | PF_IO_WORKER | PF_USER_WORKER))
		return 0;
	regs = (struct pt_regs *)bpf_task_pt_regs(task);
	if (REGS_FOREIGN(regs))
		return 0;
	number = REGS_NR(regs);
	if (number != SYS_SENDMSG && number != SYS_RECVMSG && number != SYS_SENDMMSG &&
	    number != SYS_RECVMMSG)
		return 0;
	if (bpf_probe_read_user(&header, sizeof(header), (void *)REGS_ARG2(regs)))
		return 0;
	source->iov = (__u64)header.msg_iov;
	source->iovs = header.msg_iovlen;
	return 1;
}

/* Whether a connection's call may begin a handshake: RFC 8446 5.1. */
static __always_inline bool begins_handshake(const __u8 *bytes, __u32 length)
{
	__u32 size = bytes[3] << 8 | bytes[4];

	return length >= 3 && bytes[0] == 22 && bytes[1] == 3 && bytes[2] <= 4 &&
	       (length < HEADER || (size && size <= RECORD_MAX)) &&
	       (length <= HEADER || bytes[5] == 1);
}

/* Fills in what all kinds have; false if it is not selected. */
static __always_inline bool fill(struct nc_tls_record *record, struct sock *sk,
				 const struct nc_trace_owner *owner, __u32 kind)
{
	__builtin_memset(record, 0, sizeof(*record));
	record->kind = kind;
	record->netns = sk->__sk_common.skc_net.net->ns.inum;
	record->time_ns = bpf_ktime_get_ns();
	record->cgroup_id = nc_cgroup_of(sk);
	record->owner = *owner;
	nc_ends_of_full(sk, &record->ends);
	return nc_ends_selected(&record->ends, record->netns) && nc_cgroup_selected(sk) &&
	       nc_owner_selected(owner);
}

/* Reads the first bytes of the call into the scratch. Returns how many there are, of at most NC_TLS_DATAGRAM_LOOK. */
static __always_inline __u32 read_first(struct scratch *scratch, __u32 length)
{
	__u32 take = NC_TLS_DATAGRAM_LOOK;

	scratch->buffer = scratch->source.buffer;
	scratch->available = scratch->buffer ? length : 0;
	/* Some begin with an empty one. */
	for (int i = 0; i < 2 && !scratch->available; i++)
		if (next_buffer(scratch))
			return 0;
	if (take > scratch->available)
		take = scratch->available;
	if (take > length)
		take = length;
	barrier_var(take);
	if (take > NC_TLS_DATAGRAM_LOOK)
		return 0;
	if (bpf_probe_read_user(scratch->bytes, take, (void *)scratch->buffer))
		return 0;
	return take;
}

static __always_inline int on_datagram(struct sock *sk, struct scratch *scratch, __u32 length,
				       __u32 direction)
{
	struct nc_trace_owner owner = {};
	__u32 kind;

	if (read_first(scratch, length) != NC_TLS_DATAGRAM_LOOK)
		return 0;
	kind = nc_tls_datagram(scratch->bytes, length);
	if (!kind)
		return 0;
	nc_owner_is(&owner, bpf_get_current_task_btf());
	if (!fill(&scratch->record, sk, &owner, kind))
		return 0;
	scratch->record.direction = direction;
	scratch->record.length = length;
	scratch->record.cookie = bpf_get_socket_cookie(sk);
	submit(&scratch->record, sizeof(scratch->record));
	return 0;
}

static __always_inline int on_bytes(struct sock *sk, int moved, int flags, __u32 direction,
				    __u32 slot)
{
	struct nc_trace_counters *count = nc_trace_count();
	struct task_struct *task = bpf_get_current_task_btf();
	struct nc_trace_owner owner = {};
	struct scratch *scratch;
	struct conn *conn = NULL;
	struct walk walk;
	__u32 read = 0;
	bool found;

	if (!sk || !count || moved < 0 || flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE))
		return 0;
	if (sk->__sk_common.skc_family != AF_INET && sk->__sk_common.skc_family != AF_INET6)
		return 0;
	count->seen++;
	if (sk->sk_protocol == IPPROTO_TCP) {
		conn = bpf_sk_storage_get(&conns, sk, 0, 0);
		if (conn && conn->over)
			return 0;
	} else if (sk->sk_protocol != IPPROTO_UDP) {
		return 0;
	}
	if (!moved && !conn)
		return 0;
	scratch = bpf_map_lookup_elem(&scratches, &slot);
	if (!scratch)
		return 0;
	__builtin_memset(&scratch->source, 0, sizeof(scratch->source));
	scratch->filled = scratch->gap = scratch->index = 0;
	scratch->left = moved;
	found = moved && !(flags & MSG_TRUNC && direction == NC_TLS_RECEIVED) &&
		(find_usual_source(&scratch->source, task) || find_message(&scratch->source));
	if (!conn && !found)
		return 0;
	if (sk->sk_protocol == IPPROTO_UDP)
		return on_datagram(sk, scratch, moved, direction);
	if (found)
		read = read_first(scratch, moved);
	if (!conn && !begins_handshake(scratch->bytes, read))
		return 0;
	nc_owner_is(&owner, task);
	if (!conn) {
		if (!fill(&scratch->record, sk, &owner, NC_TLS_DATA))
			return 0;
		conn = bpf_sk_storage_get(&conns, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
		if (!conn) {
			count->no_memory++;
			return 0;
		}
		conn->cookie = bpf_get_socket_cookie(sk);
	} else {
		fill(&scratch->record, sk, &owner, NC_TLS_DATA);
	}
	conn->owner = owner;
	scratch->record.direction = direction;
	scratch->record.cookie = conn->cookie;
	walk.scratch = scratch;
	walk.conn = conn;
	walk.half = &conn->half[direction];
	scratch->record.position = walk.half->position;
	walk.half->position += moved;
	if (!moved) {
		scratch->record.kind = NC_TLS_END;
		submit(&scratch->record, sizeof(scratch->record));
		return 0;
	}
	if (read)
		bpf_loop(STEPS, record_step, &walk, 0);
	/* What could not be read, or not to its end: where records begin is not known from there on. */
	if (scratch->left)
		conn->over = 1;
	if (conn->over)
		scratch->record.flags = NC_TLS_LAST;
	if (scratch->filled || scratch->gap || scratch->left)
		flush(scratch, scratch->left);
	return 0;
}

SEC("tp_btf/sock_send_length")
int BPF_PROG(tls_send, struct sock *sk, int ret, int flags)
{
	return on_bytes(sk, ret, 0, NC_TLS_SENT, 0);
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(tls_recv, struct sock *sk, int ret, int flags)
{
	return on_bytes(sk, ret, flags, NC_TLS_RECEIVED, 1);
}

/* Kernels without those tracepoints: 6.2 and older. */
SEC("fexit/inet_sendmsg")
int BPF_PROG(tls_send4, struct socket *sock, struct msghdr *msg, size_t size, int ret)
{
	return on_bytes(sock->sk, ret, 0, NC_TLS_SENT, 2);
}

SEC("fexit/inet6_sendmsg")
int BPF_PROG(tls_send6, struct socket *sock, struct msghdr *msg, size_t size, int ret)
{
	return on_bytes(sock->sk, ret, 0, NC_TLS_SENT, 3);
}

SEC("fexit/inet_recvmsg")
int BPF_PROG(tls_recv4, struct socket *sock, struct msghdr *msg, size_t size, int flags, int ret)
{
	return on_bytes(sock->sk, ret, flags, NC_TLS_RECEIVED, 4);
}

SEC("fexit/inet6_recvmsg")
int BPF_PROG(tls_recv6, struct socket *sock, struct msghdr *msg, size_t size, int flags, int ret)
{
	return on_bytes(sock->sk, ret, flags, NC_TLS_RECEIVED, 5);
}

/* A handshake that goes no further. Who is under way here need not be its owner. That the other side sends no more is told
 * when that is read (on_bytes), behind what was sent before, or when this one closes, too. */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(tls_state, struct sock *sk, int before, int after)
{
	struct nc_tls_record record;
	struct conn *conn;

	if (sk->sk_protocol != IPPROTO_TCP ||
	    (after != TCP_CLOSE && after != TCP_FIN_WAIT1 && after != TCP_LAST_ACK))
		return 0;
	conn = bpf_sk_storage_get(&conns, sk, 0, 0);
	if (!conn || conn->over)
		return 0;
	fill(&record, sk, &conn->owner, after == TCP_CLOSE ? NC_TLS_GONE : NC_TLS_END);
	record.direction = after == TCP_LAST_ACK ? NC_TLS_RECEIVED : NC_TLS_SENT;
	record.cookie = conn->cookie;
	submit(&record, sizeof(record));
	return 0;
}
