// SPDX-License-Identifier: GPL-2.0-only
/*
 * What processes write to and read from OpenSSL, as bytes of a connection for the same parser as those of system
 * calls. Probes are at the entries and returns of its functions; no layout of its objects is used.
 *
 * Which socket an SSL object speaks through is seen: the socket calls that a thread makes within a call of the
 * library move records of that object. Such a call counts only if its stack is below that of the library's call, as
 * it is not where a thread has more than one stack, and if its bytes begin as a TLS record does. Where there is
 * none (memory BIOs), the socket is not known, and nothing takes its place.
 *
 * The probes' programs may be preempted by one another, and kernels from 6.13 on give programs with a stack of 64
 * bytes and more a private one for each CPU as if they could not. So they have less, put records together in the ring
 * itself, and keep all else in the maps.
 */
#include <vmlinux.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>

#include <netctl/lib/http_calls.h>

char LICENSE[] SEC("license") = "GPL";

#define PIECE 16384	   /* bytes of one record in the ring, as of one of TLS */
#define PIECES 4096	   /* of one call; what is more is told by its length */
#define STACK_BELOW 262144 /* how far down from the library's call a socket call is looked for */
#define RETURN_POPS 16	   /* how far above its entry a function's stack ends at most */

enum call_kind { CALL_BYTES, CALL_BYTES_EX, CALL_FILE, CALL_HANDSHAKE };

struct stream_key {
	__u64 ssl;
	__u32 pid;
	__u32 zero;
};

/* A call of the library, by thread. */
struct call {
	struct stream_key key;
	__u64 buffer;
	__u64 length_at; /* of CALL_BYTES_EX: where the callee puts how much it was */
	__u64 stack;
	__u64 time; /* when the socket took or gave the bytes, 0 if it did not */
	__u64 stream;
	__u64 position;
	__u64 answered;
	__u64 scratch[2];
	__u32 left;
	__u8 kind;
	__u8 direction;
	__u8 reserved[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH); /* threads may die within a call */
	__uint(max_entries, 32768);
	__type(key, __u32);
	__type(value, struct call);
} tls_calls SEC(".maps");

#define STREAM_HTTP (1u << 0)
#define STREAM_OPENED (1u << 1)
#define STREAM_SELECTED (1u << 2) /* its socket is */
#define STREAM_CLOSED (1u << 3)

struct place {
	__u32 netns;
	__u32 origin[2];
	__u16 local_port;
	__u16 remote_port;
	__u8 local[16];
	__u8 remote[16];
	__u8 family;
	__u8 reserved[3];
};

/* An SSL object's connection. */
struct stream {
	__u64 id;
	__u64 socket; /* its cookie, 0 while it is not known */
	__u64 birth;  /* of the process's image: ids and addresses are used again */
	__u64 position[2];
	__u64 begin[2];
	__u32 flags;
	__u8 role;
	__u8 reserved[3];
	struct place place;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct stream_key);
	__type(value, struct stream);
} tls_streams SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, __u64);
	__type(value, struct nc_http_tls_flow);
} tls_flows SEC(".maps");

#define SOCKET_JOINED (1u << 0) /* a call that moves bytes spoke through it */
#define SOCKET_TOLD (1u << 1)
#define SOCKET_SHOOK (1u << 2) /* a handshake did */

static const struct call no_call;
static const struct stream no_stream;
static const __u32 zero; /* the key of arrays, which is then not on the stack */
__u64 streams_made;

static __always_inline struct nc_http_counters *my_counters(void)
{
	return bpf_map_lookup_elem(&counters, &zero);
}

static __always_inline struct nc_http_config *my_settings(void)
{
	return bpf_map_lookup_elem(&settings, &zero);
}

/* Programs that are preempted by others that count. */
#define COUNT(counter) __sync_fetch_and_add(&(counter), 1)

static __always_inline __u64 birth_of(struct task_struct *task)
{
	return task->group_leader->start_time + task->self_exec_id;
}

static __always_inline void begin_stream(struct stream *stream, __u64 birth)
{
	__builtin_memset(stream, 0, sizeof(*stream));
	stream->id = NC_HTTP_STREAM | __sync_fetch_and_add(&streams_made, 1);
	stream->birth = birth;
	stream->position[0] = stream->position[1] = 1ull << 32;
}

static __always_inline struct stream *stream_of(struct stream_key *key, struct task_struct *task)
{
	struct stream *stream = bpf_map_lookup_elem(&tls_streams, key);
	__u64 birth = birth_of(task);

	if (stream && stream->birth == birth)
		return stream;
	if (!stream) {
		bpf_map_update_elem(&tls_streams, key, &no_stream, BPF_ANY);
		stream = bpf_map_lookup_elem(&tls_streams, key);
		if (!stream)
			return NULL;
	}
	begin_stream(stream, birth);
	return stream;
}

static __always_inline void tell_end(struct stream *stream, __u8 kind, __u8 direction, __u16 flags,
				     struct nc_http_counters *count)
{
	struct nc_http_record *record = bpf_ringbuf_reserve(&events, sizeof(*record), 0);

	if (!record) {
		COUNT(count->lost);
		return;
	}
	__builtin_memset(record, 0, sizeof(*record));
	record->kind = kind;
	record->direction = direction;
	record->flags = flags;
	record->time_ns = bpf_ktime_get_ns();
	record->cookie = stream->id;
	record->position = stream->position[direction & 1];
	bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);
	COUNT(count->sent);
}

static __always_inline void fill_open(struct nc_http_open *event, struct task_struct *task)
{
	__builtin_memset(event, 0, sizeof(*event));
	event->record.time_ns = bpf_ktime_get_ns();
	event->record.pid = bpf_get_current_pid_tgid() >> 32;
	event->cgroup_id = bpf_get_current_cgroup_id();
	bpf_probe_read_kernel_str(event->comm, sizeof(event->comm), task->group_leader->comm);
}

static __always_inline void fill_place(struct nc_http_open *event, const struct place *place)
{
	event->family = place->family;
	event->local_port = place->local_port;
	event->remote_port = place->remote_port;
	event->netns = place->netns;
	event->origin_sent = place->origin[NC_HTTP_SENT];
	event->origin_received = place->origin[NC_HTTP_RECEIVED];
	__builtin_memcpy(event->local, place->local, sizeof(event->local));
	__builtin_memcpy(event->remote, place->remote, sizeof(event->remote));
}

/* ---- the library's functions ---- */

static __always_inline struct call *enter(struct pt_regs *ctx, __u64 buffer, __u64 length_at,
					  __u8 kind, __u8 direction)
{
	__u32 thread = bpf_get_current_pid_tgid();
	struct call *call = bpf_map_lookup_elem(&tls_calls, &thread);

	if (!call) {
		bpf_map_update_elem(&tls_calls, &thread, &no_call, BPF_ANY);
		call = bpf_map_lookup_elem(&tls_calls, &thread);
		if (!call)
			return NULL;
	}
	call->key.ssl = PT_REGS_PARM1(ctx);
	call->key.pid = bpf_get_current_pid_tgid() >> 32;
	call->key.zero = 0;
	call->buffer = buffer;
	call->length_at = length_at;
	call->stack = PT_REGS_SP(ctx);
	call->time = 0;
	call->kind = kind;
	call->direction = direction;
	return call;
}

SEC("uprobe")
int tls_read(struct pt_regs *ctx)
{
	enter(ctx, PT_REGS_PARM2(ctx), 0, CALL_BYTES, NC_HTTP_RECEIVED);
	return 0;
}

SEC("uprobe")
int tls_read_ex(struct pt_regs *ctx)
{
	enter(ctx, PT_REGS_PARM2(ctx), PT_REGS_PARM4(ctx), CALL_BYTES_EX, NC_HTTP_RECEIVED);
	return 0;
}

/* By kernel TLS. */
SEC("uprobe")
int tls_sendfile(struct pt_regs *ctx)
{
	enter(ctx, 0, 0, CALL_FILE, NC_HTTP_SENT);
	return 0;
}

SEC("uprobe")
int tls_handshake(struct pt_regs *ctx)
{
	enter(ctx, 0, 0, CALL_HANDSHAKE, NC_HTTP_SENT);
	return 0;
}

/* SSL_free and SSL_clear. */
SEC("uprobe")
int tls_free(struct pt_regs *ctx)
{
	struct stream_key key = { .ssl = PT_REGS_PARM1(ctx),
				  .pid = bpf_get_current_pid_tgid() >> 32 };
	struct stream *stream = bpf_map_lookup_elem(&tls_streams, &key);
	struct nc_http_counters *count = my_counters();

	if (!stream || !count)
		return 0;
	if ((stream->flags & (STREAM_OPENED | STREAM_CLOSED)) == STREAM_OPENED)
		tell_end(stream, NC_HTTP_CLOSE, NC_HTTP_SENT, 0, count);
	bpf_map_delete_elem(&tls_streams, &key);
	return 0;
}

/* Functions of their own, so that there is a frame for each thing that is done, and not one for all. */

/* Of those that are not about the socket, all but its namespace, for which the process's stands. */
static __noinline bool selected_process(struct call *call)
{
	const struct nc_http_config *cfg = my_settings();
	struct task_struct *task = bpf_get_current_task_btf();

	if (!cfg)
		return false;
	if (cfg->select & NC_HTTP_SELECT_PID && !bpf_map_lookup_elem(&pids, &call->key.pid))
		return false;
	if (cfg->select & NC_HTTP_SELECT_NETNS && task->nsproxy->net_ns->ns.inum != cfg->netns)
		return false;
	if (cfg->select & NC_HTTP_SELECT_CGROUP &&
	    bpf_get_current_ancestor_cgroup_id(cfg->cgroup_level) != cfg->cgroup_id)
		return false;
	if (cfg->select & NC_HTTP_SELECT_COMM) {
		const __u64 *wanted = (const void *)cfg->comm;

		call->scratch[0] = call->scratch[1] = 0;
		bpf_probe_read_kernel_str(call->scratch, sizeof(call->scratch),
					  task->group_leader->comm);
		if (call->scratch[0] != wanted[0] || call->scratch[1] != wanted[1])
			return false;
	}
	return true;
}

static __noinline int tell_open(struct stream *stream)
{
	struct nc_http_config *cfg = my_settings();
	struct nc_http_counters *count = my_counters();
	struct nc_http_open *event;

	if (!cfg || !count)
		return 0;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		COUNT(count->lost);
		return 0;
	}
	fill_open(event, bpf_get_current_task_btf());
	event->record.kind = NC_HTTP_OPEN;
	event->record.flags = NC_HTTP_TLS;
	if (!stream->socket && cfg->select & NC_HTTP_SELECT_PORT)
		event->record.flags |= NC_HTTP_UNPLACED;
	event->record.cookie = stream->id;
	event->role = stream->role;
	fill_place(event, &stream->place);
	event->begin[NC_HTTP_SENT] = stream->begin[NC_HTTP_SENT];
	event->begin[NC_HTTP_RECEIVED] = stream->begin[NC_HTTP_RECEIVED];
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
	COUNT(count->sent);
	stream->flags |= STREAM_OPENED;
	return 0;
}

static __always_inline void fill_data(struct nc_http_record *record, const struct call *call,
				      __u32 length, __u32 captured)
{
	record->kind = NC_HTTP_DATA;
	record->direction = call->direction;
	record->flags = 0;
	record->pid = call->key.pid;
	record->time_ns = call->time;
	record->cookie = call->stream;
	record->position = call->position;
	record->answered = call->answered;
	record->length = length;
	record->captured = captured;
}

#define TELL_PIECE(SIZE)                                                                           \
	do {                                                                                       \
		struct nc_http_record *record =                                                    \
			bpf_ringbuf_reserve(&events, sizeof(*record) + (SIZE), 0);                 \
		__u32 wanted = take;                                                               \
                                                                                                   \
		if (!record) {                                                                     \
			COUNT(count->lost);                                                        \
			break;                                                                     \
		}                                                                                  \
		fill_data(record, call, take, take);                                               \
		/* Cannot be; but 6.1's verifier wants to see the very register compared. */       \
		barrier_var(wanted);                                                               \
		if (wanted > (SIZE)) {                                                             \
			bpf_ringbuf_discard(record, BPF_RB_NO_WAKEUP);                             \
			break;                                                                     \
		}                                                                                  \
		if (bpf_probe_read_user(record + 1, wanted, (void *)call->buffer)) {               \
			record->captured = 0;                                                      \
			COUNT(count->unreadable);                                                  \
		}                                                                                  \
		bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);                                      \
		COUNT(count->sent);                                                                \
	} while (0)

static __always_inline void tell_gap(struct call *call, __u32 length,
				     struct nc_http_counters *count)
{
	struct nc_http_record *record = bpf_ringbuf_reserve(&events, sizeof(*record), 0);

	if (record) {
		fill_data(record, call, length, 0);
		bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);
		COUNT(count->sent);
	} else {
		COUNT(count->lost);
	}
	call->position += length;
	call->buffer += length;
	call->left -= length;
}

static long tell_piece(__u32 step, struct call **called)
{
	struct nc_http_counters *count = my_counters();
	struct call *call = *called;
	__u32 take = call->left;

	if (!take || !count)
		return 1;
	if (take > PIECE)
		take = PIECE;
	if (take <= 512)
		TELL_PIECE(512);
	else if (take <= 4096)
		TELL_PIECE(4096);
	else
		TELL_PIECE(PIECE);
	call->position += take;
	call->buffer += take;
	call->left -= take;
	return 0;
}

static __noinline int tell_bytes(struct call *call)
{
	struct nc_http_counters *count = my_counters();
	struct nc_http_tls_flow *flow = bpf_map_lookup_elem(&tls_flows, &call->stream);
	__u64 until = flow ? flow->until[call->direction & 1] : 0;

	if (!count)
		return 0;
	if (until > call->position) {
		__u64 unwanted = until - call->position;

		tell_gap(call, unwanted < call->left ? unwanted : call->left, count);
	}
	if (call->buffer)
		bpf_loop(PIECES, tell_piece, &call, 0);
	if (call->left) {
		if (call->buffer)
			COUNT(count->truncated);
		tell_gap(call, call->left, count);
	}
	return 0;
}

static __noinline int look_at_first(struct stream *stream, struct call *call)
{
	__u32 direction = call->direction & 1, length = call->left;
	enum nc_http_start start;

	if (length > 10)
		length = 10;
	/* 6.1's verifier does not see that. */
	barrier_var(length);
	length &= 15;
	call->scratch[0] = call->scratch[1] = 0;
	if (bpf_probe_read_user(call->scratch, length, (void *)call->buffer))
		return 0;
	start = nc_http_first_bytes(call->scratch[0], length < 4 ? length : 4);
	if (start == NC_HTTP_START_NO && length == 10)
		start = nc_http2_first_bytes(call->scratch[0], call->scratch[1]);
	if (start == NC_HTTP_START_NO)
		return 0;
	if (!(stream->flags & STREAM_HTTP)) {
		stream->flags |= STREAM_HTTP;
		stream->begin[direction] = stream->position[direction];
		stream->begin[!direction] = stream->position[!direction];
	}
	if (start >= NC_HTTP_START_REQUEST) {
		stream->role = (start == NC_HTTP_START_REQUEST) == (direction == NC_HTTP_SENT) ?
				       NC_HTTP_CLIENT :
				       NC_HTTP_SERVER;
		stream->flags &= ~STREAM_OPENED;
	}
	return 0;
}

/* Who asks is told of before the request can be answered, as far as its socket is known by then. */
static __noinline int announce(struct call *call)
{
	struct stream *stream = stream_of(&call->key, bpf_get_current_task_btf());
	struct nc_http_config *cfg = my_settings();

	if (!stream || !cfg || cfg->flags & NC_HTTP_PAUSED || !call->left)
		return 0;
	if (!stream->role)
		look_at_first(stream, call);
	if ((stream->flags & (STREAM_HTTP | STREAM_OPENED | STREAM_SELECTED)) ==
		    (STREAM_HTTP | STREAM_SELECTED) &&
	    stream->socket)
		tell_open(stream);
	return 0;
}

SEC("uprobe")
int tls_write(struct pt_regs *ctx)
{
	struct call *call = enter(ctx, PT_REGS_PARM2(ctx), 0, CALL_BYTES, NC_HTTP_SENT);

	if (!call)
		return 0;
	call->left = (__s32)PT_REGS_PARM3(ctx) > 0 ? PT_REGS_PARM3(ctx) : 0;
	return announce(call);
}

SEC("uprobe")
int tls_write_ex(struct pt_regs *ctx)
{
	struct call *call =
		enter(ctx, PT_REGS_PARM2(ctx), PT_REGS_PARM4(ctx), CALL_BYTES_EX, NC_HTTP_SENT);

	if (!call)
		return 0;
	call->left = PT_REGS_PARM3(ctx);
	return announce(call);
}

/* How much a call moved: 0 for nothing, -1 for the other side's end. */
static __noinline int moved_by(struct call *call, __u64 returned)
{
	switch (call->kind) {
	case CALL_BYTES:
		if ((__s32)returned > 0)
			return (__s32)returned;
		return (__u32)returned == 0 && call->direction == NC_HTTP_RECEIVED ? -1 : 0;
	case CALL_BYTES_EX:
		if ((__u32)returned != 1 ||
		    bpf_probe_read_user(call->scratch, 8, (void *)call->length_at))
			return 0;
		return call->scratch[0] & 0x7fffffff;
	case CALL_FILE:
		return (__s64)returned > 0 ? returned & 0x7fffffff : 0;
	}
	return 0;
}

static __noinline int deliver(struct call *call, int moved)
{
	struct stream *stream = stream_of(&call->key, bpf_get_current_task_btf());
	struct nc_http_counters *count = my_counters();
	struct nc_http_config *cfg = my_settings();
	__u32 direction = call->direction & 1;
	__u64 position;

	if (!cfg || !count)
		return 0;
	if (!stream) {
		COUNT(count->no_memory);
		return 0;
	}
	position = stream->position[direction];
	if (moved > 0)
		stream->position[direction] = position + moved;
	if (cfg->flags & NC_HTTP_PAUSED ||
	    !(stream->socket ? stream->flags & STREAM_SELECTED : selected_process(call)))
		return 0;
	if (moved < 0) {
		if (stream->flags & STREAM_OPENED)
			tell_end(stream, NC_HTTP_END, NC_HTTP_RECEIVED, 0, count);
		return 0;
	}
	call->left = moved;
	call->position = position;
	if (!stream->role && call->buffer) {
		look_at_first(stream, call);
		if (stream->begin[direction] > position)
			stream->begin[direction] = position;
	}
	if (!(stream->flags & STREAM_HTTP)) {
		COUNT(count->other);
		return 0;
	}
	if (!(stream->flags & STREAM_OPENED))
		tell_open(stream);
	call->stream = stream->id;
	call->answered = stream->position[!direction];
	if (!call->time)
		call->time = bpf_ktime_get_ns();
	return tell_bytes(call);
}

SEC("uretprobe")
int tls_return(struct pt_regs *ctx)
{
	__u32 thread = bpf_get_current_pid_tgid();
	struct call *call = bpf_map_lookup_elem(&tls_calls, &thread);
	int moved;

	/* The call that returns is the last that began, unless that was within it, or never returned. */
	if (!call || PT_REGS_SP(ctx) - call->stack > RETURN_POPS)
		return 0;
	moved = moved_by(call, PT_REGS_RC(ctx));
	if (moved)
		deliver(call, moved);
	bpf_map_delete_elem(&tls_calls, &thread);
	return 0;
}

/* ---- the sockets ---- */

static __always_inline void find_place(struct place *place, struct sock *sk, struct tcp_sock *tcp)
{
	place->netns = sk->__sk_common.skc_net.net->ns.inum;
	place->local_port = sk->__sk_common.skc_num;
	place->remote_port = bpf_ntohs(sk->__sk_common.skc_dport);
	if (sk->__sk_common.skc_family == AF_INET) {
		__u32 local = sk->__sk_common.skc_rcv_saddr;
		__u32 remote = sk->__sk_common.skc_daddr;

		place->family = 4;
		__builtin_memcpy(place->local, &local, 4);
		__builtin_memcpy(place->remote, &remote, 4);
	} else {
		place->family = 6;
		BPF_CORE_READ_INTO(&place->local, sk, __sk_common.skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO(&place->remote, sk, __sk_common.skc_v6_daddr);
	}
	place->origin[NC_HTTP_SENT] = tcp->snd_una - (__u32)tcp->bytes_acked;
	place->origin[NC_HTTP_RECEIVED] = tcp->rcv_nxt - (__u32)tcp->bytes_received;
}

/* The type of the TLS record that a call's bytes begin with; 0 if they begin with none. */
static __always_inline __u8 record_type(struct task_struct *task, int moved)
{
	struct source source = {};
	__u8 head[5];
	__u32 length;

	if (moved < (int)sizeof(head))
		return 0;
	if (!find_usual_source(&source, task)) {
		struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
		struct user_msghdr header;

		if (REGS_FOREIGN(regs) ||
		    (REGS_NR(regs) != SYS_SENDMSG && REGS_NR(regs) != SYS_RECVMSG) ||
		    bpf_probe_read_user(&header, sizeof(header), (void *)REGS_ARG2(regs)))
			return 0;
		source.iov = (__u64)header.msg_iov;
	}
	if (!source.buffer) {
		struct iovec vector;

		if (bpf_probe_read_user(&vector, sizeof(vector), (void *)source.iov) ||
		    vector.iov_len < sizeof(head))
			return 0;
		source.buffer = (__u64)vector.iov_base;
	}
	if (bpf_probe_read_user(head, sizeof(head), (void *)source.buffer))
		return 0;
	length = head[3] << 8 | head[4];
	if (head[0] < 20 || head[0] > 24 || head[1] != 3 || head[2] > 4 || !length ||
	    length > PIECE + 2048)
		return 0;
	/* As of data, but of this length it is an alert of TLS 1.3. */
	return head[0] == 23 && length == 19 ? 21 : head[0];
}

/* Records are made and read by the kernel then. */
static __always_inline bool kernel_tls(struct sock *sk)
{
	struct inet_connection_sock *connection = (void *)sk;
	const struct tcp_ulp_ops *layer = BPF_CORE_READ(connection, icsk_ulp_ops);
	__u32 name = 0;

	return layer && !BPF_CORE_READ_INTO(&name, layer, name) &&
	       name == NC_FOUR('t', 'l', 's', 0);
}

static __noinline void tell_sealed(struct sock *sk, struct tcp_sock *tcp, struct task_struct *task,
				   struct nc_http_counters *count)
{
	struct nc_http_open *event;
	struct place place = {};

	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		COUNT(count->lost);
		return;
	}
	find_place(&place, sk, tcp);
	fill_open(event, task);
	fill_place(event, &place);
	event->record.kind = NC_HTTP_SEALED;
	event->record.flags = NC_HTTP_TLS;
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
	COUNT(count->sent);
}

static __always_inline void join(struct sock *sk, struct tcp_sock *tcp, struct call *call,
				 struct task_struct *task, const struct nc_http_config *cfg,
				 struct nc_http_counters *count)
{
	struct stream_key key = { .ssl = call->key.ssl, .pid = bpf_get_current_pid_tgid() >> 32 };
	struct stream *stream = stream_of(&key, task);
	__u64 cookie = bpf_get_socket_cookie(sk);
	bool placed = false;

	if (!stream)
		return;
	if (stream->socket != cookie) {
		/* The object serves another connection than before. */
		if (stream->socket) {
			if ((stream->flags & (STREAM_OPENED | STREAM_CLOSED)) == STREAM_OPENED)
				tell_end(stream, NC_HTTP_CLOSE, NC_HTTP_SENT, 0, count);
			begin_stream(stream, stream->birth);
		}
		stream->socket = cookie;
		placed = true;
		find_place(&stream->place, sk, tcp);
	}
	if (!selected(cfg, sk, task)) {
		if (stream->flags & STREAM_OPENED)
			tell_end(stream, NC_HTTP_CLOSE, NC_HTTP_SENT, NC_HTTP_FORGET, count);
		stream->flags &= ~(STREAM_SELECTED | STREAM_OPENED);
		return;
	}
	stream->flags |= STREAM_SELECTED;
	/* For the first time, or again, now that its socket is known. */
	if (placed && stream->flags & STREAM_HTTP)
		tell_open(stream);
}

static __always_inline int on_socket(struct sock *sk, int moved, int flags)
{
	__u32 thread = bpf_get_current_pid_tgid();
	struct nc_http_counters *count;
	struct tls_socket *known;
	struct nc_http_config *cfg;
	struct task_struct *task;
	struct tcp_sock *tcp;
	struct pt_regs *regs;
	struct call *call;
	__u8 type = 0;

	if (!sk || moved <= 0 || flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE))
		return 0;
	if (sk->__sk_common.skc_family != AF_INET && sk->__sk_common.skc_family != AF_INET6)
		return 0;
	task = bpf_get_current_task_btf();
	if (task->flags & (PF_KTHREAD | PF_IO_WORKER | PF_USER_WORKER))
		return 0;
	call = bpf_map_lookup_elem(&tls_calls, &thread);
	known = bpf_sk_storage_get(&tls_sockets, sk, 0, 0);
	if (!call && known && known->flags & (SOCKET_JOINED | SOCKET_TOLD))
		return 0;
	if (call) {
		regs = (struct pt_regs *)bpf_task_pt_regs(task);
		if (call->stack - REGS_STACK(regs) > STACK_BELOW)
			call = NULL;
	}
	cfg = my_settings();
	count = my_counters();
	tcp = tcp_of(sk);
	if (!cfg || !count || !tcp)
		return 0;
	if (!(call && known && known->ssl == call->key.ssl &&
	      known->pid == bpf_get_current_pid_tgid() >> 32)) {
		type = record_type(task, moved);
		if (!type && !(call && kernel_tls(sk)))
			return 0;
	}
	if (!known) {
		known = bpf_sk_storage_get(&tls_sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
		if (!known) {
			count->no_memory++;
			return 0;
		}
	}
	if (call) {
		if (!call->time || call->direction == NC_HTTP_RECEIVED)
			call->time = bpf_ktime_get_ns();
		known->ssl = call->key.ssl;
		known->pid = bpf_get_current_pid_tgid() >> 32;
		known->flags |= call->kind == CALL_HANDSHAKE ? SOCKET_SHOOK : SOCKET_JOINED;
		join(sk, tcp, call, task, cfg, count);
		return 0;
	}
	/* Handshakes come to nothing often enough. */
	if (type == 23 && !(cfg->flags & NC_HTTP_PAUSED) && selected(cfg, sk, task)) {
		known->flags |= SOCKET_TOLD;
		tell_sealed(sk, tcp, task, count);
	}
	return 0;
}

SEC("tp_btf/sock_send_length")
int BPF_PROG(tls_sent, struct sock *sk, int ret, int flags)
{
	return on_socket(sk, ret, 0);
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(tls_received, struct sock *sk, int ret, int flags)
{
	return on_socket(sk, ret, flags);
}

/* Kernels without those tracepoints: 6.2 and older. */
SEC("fexit/inet_sendmsg")
int BPF_PROG(tls_sent4, struct socket *sock, struct msghdr *msg, size_t size, int ret)
{
	return on_socket(sock->sk, ret, 0);
}

SEC("fexit/inet6_sendmsg")
int BPF_PROG(tls_sent6, struct socket *sock, struct msghdr *msg, size_t size, int ret)
{
	return on_socket(sock->sk, ret, 0);
}

SEC("fexit/inet_recvmsg")
int BPF_PROG(tls_received4, struct socket *sock, struct msghdr *msg, size_t size, int flags,
	     int ret)
{
	return on_socket(sock->sk, ret, flags);
}

SEC("fexit/inet6_recvmsg")
int BPF_PROG(tls_received6, struct socket *sock, struct msghdr *msg, size_t size, int flags,
	     int ret)
{
	return on_socket(sock->sk, ret, flags);
}

/* Who does not free the library's object, as those that exit, ends the connection here. */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(tls_state, struct sock *sk, int before, int after)
{
	struct nc_http_counters *count;
	struct stream_key key = {};
	struct tls_socket *known;
	struct stream *stream;

	if (after != TCP_CLOSE && after != TCP_FIN_WAIT1 && after != TCP_LAST_ACK)
		return 0;
	known = bpf_sk_storage_get(&tls_sockets, sk, 0, 0);
	count = my_counters();
	if (!known || !count || !(known->flags & (SOCKET_JOINED | SOCKET_SHOOK)))
		return 0;
	key.ssl = known->ssl;
	key.pid = known->pid;
	stream = bpf_map_lookup_elem(&tls_streams, &key);
	if (!stream || stream->socket != bpf_get_socket_cookie(sk) ||
	    (stream->flags & (STREAM_OPENED | STREAM_CLOSED)) != STREAM_OPENED)
		return 0;
	if (after == TCP_CLOSE)
		stream->flags |= STREAM_CLOSED;
	tell_end(stream, after == TCP_CLOSE ? NC_HTTP_CLOSE : NC_HTTP_END, NC_HTTP_SENT, 0, count);
	return 0;
}
