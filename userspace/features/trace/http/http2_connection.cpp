// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/http/http2_connection.hpp"

#include <algorithm>
#include <utility>

namespace netctl::trace {

namespace {

/// A stream of which frames may be missing is taken for over when it was quiet for so long.
constexpr Time doubt_patience = 10 * second;
/// An answer waits so long for its request, which other packets may have overtaken.
constexpr Time early_patience = second;

std::uint32_t number_of(std::string_view text) {
    std::uint32_t value = 0;
    for (const char c : text.substr(0, 4))
        value = value << 8 | static_cast<unsigned char>(c);
    return value;
}

/// A field's name as RFC 9113 8.2 wants it: in lower case; one colon before it says that it is no field.
bool is_name(std::string_view name) {
    if (name.starts_with(':'))
        name.remove_prefix(1);
    return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
               std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
    });
}

bool is_method(std::string_view text) {
    return !text.empty() && std::all_of(text.begin(), text.end(),
                                        [](char c) { return (c >= 'A' && c <= 'Z') || c == '-'; });
}

/// 0 if it is none.
int status_of(std::string_view text) {
    if (text.size() != 3 || text[0] < '1' ||
        !std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; }))
        return 0;
    return (text[0] - '0') * 100 + (text[1] - '0') * 10 + (text[2] - '0');
}

/// The part of a HEADERS frame's payload that is compressed; empty if there is none.
std::string_view block_of(const Frame& frame, std::string_view payload) {
    const std::size_t before =
        (frame.has(Frame::padded) ? 1 : 0) + (frame.has(Frame::priority) ? 5 : 0);
    const std::size_t behind =
        frame.has(Frame::padded) && !payload.empty() ? static_cast<unsigned char>(payload[0]) : 0;
    return payload.size() >= before + behind
               ? payload.substr(before, payload.size() - before - behind)
               : std::string_view();
}

/// Whose head a block is, if that is beyond doubt.
std::optional<MessageKind> kind_of_head(std::string_view block) {
    bool method = false, place = false, status = false, wrong = block.empty(), regular = false;
    LateHpack late;
    const bool whole = late.decode(block, [&](HpackText name, HpackText value) {
        if (!name)
            return;
        wrong |= !is_name(*name);
        if (!name->starts_with(':')) {
            regular = true;
            return;
        }
        wrong |= regular; // RFC 9113 8.3: those come first
        if (*name == ":method")
            method |= value && is_method(*value);
        else if (*name == ":status")
            status |= value && status_of(*value) != 0;
        else
            place = true;
    });
    if (!whole || wrong || (method && status))
        return std::nullopt;
    if (method && place)
        return MessageKind::request;
    return status && !place ? std::optional(MessageKind::response) : std::nullopt;
}

} // namespace

/// What a block says.
struct Http2Connection::Fields {
    bool damaged = false;        ///< not all of it is here
    bool begins_regular = false; ///< as trailers do, and no head
    std::string method, path, authority, host;
    int status = 0;
    std::string content_type, content_encoding;
    std::optional<std::uint32_t> grpc_status;
    std::string grpc_message;
    Time grpc_timeout = 0;
    std::vector<HeaderField> kept;
    unsigned unknown = 0;
    std::size_t text = 0; ///< bytes that are kept

    void add(HpackText name, HpackText value, bool keep, bool first);
    void add_pseudo(std::string_view name, std::string_view value);
    void add_known(std::string_view name, std::string_view value);
};

void Http2Connection::Fields::add_pseudo(std::string_view name, std::string_view value) {
    const auto take = [&](std::string& out) {
        out = value.substr(0, head_limit);
        text += out.size();
    };
    if (name == ":method")
        take(method);
    else if (name == ":path")
        take(path);
    else if (name == ":authority")
        take(authority);
    else if (name == ":status")
        status = status_of(value);
}

void Http2Connection::Fields::add_known(std::string_view name, std::string_view value) {
    text += value.size();
    if (name == "content-type" && content_type.empty()) {
        content_type = value;
    } else if (name == "content-encoding") {
        if (!content_encoding.empty())
            content_encoding += ',';
        content_encoding += value;
    } else if (name == "host" && host.empty()) {
        host = value;
    } else if (name == "grpc-status") {
        grpc_status = parse_grpc_status(value);
    } else if (name == "grpc-message") {
        grpc_message = decode_grpc_message(value);
    } else if (name == "grpc-timeout") {
        grpc_timeout = parse_grpc_timeout(value);
    } else {
        text -= value.size();
    }
}

void Http2Connection::Fields::add(HpackText name, HpackText value, bool keep, bool first) {
    if (!name && !value) {
        ++unknown;
        return;
    }
    if (name && name->starts_with(':')) {
        if (value)
            add_pseudo(*name, *value);
        else
            ++unknown;
        return;
    }
    begins_regular |= first && name;
    const std::size_t size = (name ? name->size() : 0) + (value ? value->size() : 0);
    if (text + size > head_limit) {
        damaged = true;
        return;
    }
    if (name && value)
        add_known(*name, *value);
    if (!keep)
        return;
    text += size + sizeof(HeaderField);
    // No name has a question mark in it.
    kept.push_back({std::string(name.value_or("?")), std::string(value.value_or("?"))});
}

std::optional<MessageKind> guess_http2(std::string_view text) {
    if (!looks_like_frames(text))
        return std::nullopt;
    while (const auto frame = parse_frame_header(text)) {
        text.remove_prefix(Frame::header_size);
        if (text.size() < frame->length)
            return std::nullopt;
        if (frame->type == FrameType::headers && frame->has(Frame::end_headers))
            if (const auto kind = kind_of_head(block_of(*frame, text.substr(0, frame->length))))
                return kind;
        text.remove_prefix(frame->length);
    }
    return std::nullopt;
}

Http2Connection::Http2Connection(const ParserOptions& options, ParserCounters& counters,
                                 MemoryBudget& budget, bool seen, Emit emit)
    : options_(&options), counters_(&counters), share_(&budget), emit_(std::move(emit)) {
    FrameSink& sink = *this;
    // A server may have spoken before the preface came, which was not looked at, and has not answered anything by
    // then: what comes next of it is a frame all the same, and its table is empty.
    for (const auto side : {MessageKind::request, MessageKind::response}) {
        directions_[static_cast<std::size_t>(side)] =
            std::make_unique<Direction>(side, sink, seen, seen && side == MessageKind::request);
        of(side).lost = !seen;
    }
    ++counters_->http2;
    if (!seen)
        counters_->tables_unknown += 2;
}

void Http2Connection::adopt(Transaction request) {
    FrameSink& sink = *this;
    directions_[static_cast<std::size_t>(MessageKind::response)] =
        std::make_unique<Direction>(MessageKind::response, sink, true, true);
    of(MessageKind::request).preface = http2_preface.size();
    Stream& stream = add(1);
    stream.transaction = std::move(request);
    stream.transaction.stream = 1;
    stream.request_done = true;
    last_asked_ = 1;
    asked_ = true;
}

void Http2Connection::data(MessageKind side, std::string_view data, const Moment& moment) {
    Direction& direction = of(side);
    Moment begin = moment;
    if (direction.preface > 0) {
        const std::size_t take = std::min(direction.preface, data.size());
        direction.preface -= take;
        data.remove_prefix(take);
        begin.at += static_cast<std::uint32_t>(take);
    }
    if (!data.empty())
        direction.reader.data(data, begin);
    charge(moment.time);
}

void Http2Connection::gap(MessageKind side, std::uint64_t length, Time now) {
    Direction& direction = of(side);
    const std::uint64_t take = std::min<std::uint64_t>(direction.preface, length);
    direction.preface -= take;
    if (length > take)
        direction.reader.gap(length - take, now);
    charge(now);
}

// ---- frames ----

void Http2Connection::on_frame(MessageKind side, const Frame& frame, const Moment& begin) {
    Direction& direction = of(side);
    Block& block = direction.block;
    direction.lost = false;
    direction.hole = false;
    direction.prefix.clear();
    direction.control.clear();
    direction.content = 0;
    // RFC 9113 6.10: nothing comes between the parts of a block.
    if (block.open && (frame.type != FrameType::continuation || frame.stream != block.stream)) {
        block.damaged = true;
        finish_block(side, begin.time);
    }
    const std::size_t padding = frame.has(Frame::padded) ? 1 : 0;
    direction.prefix_size = 0;
    switch (frame.type) {
    case FrameType::data:
        direction.prefix_size = padding;
        if (Stream* stream = find(frame.stream))
            message_of(*stream, side).wire_bytes += Frame::header_size;
        break;
    case FrameType::headers:
        direction.prefix_size = padding + (frame.has(Frame::priority) ? 5 : 0);
        begin_block(direction, frame, begin);
        break;
    case FrameType::push_promise:
        direction.prefix_size = padding + 4;
        begin_block(direction, frame, begin);
        break;
    case FrameType::continuation:
        if (block.open)
            block.wire += Frame::header_size;
        else
            lose_table(direction); // its beginning is missing
        break;
    default: break;
    }
    if (direction.prefix_size == 0)
        direction.content = frame.length;
}

void Http2Connection::begin_block(Direction& direction, const Frame& frame, const Moment& begin) {
    Block& block = direction.block;
    block.open = true;
    block.damaged = frame.length < direction.prefix_size;
    block.promise = frame.type == FrameType::push_promise;
    block.end_stream = !block.promise && frame.has(Frame::end_stream);
    block.stream = frame.stream;
    block.promised = 0;
    block.wire = Frame::header_size;
    block.begin = begin;
    block.bytes.clear();
}

void Http2Connection::finish_prefix(Direction& direction, const Frame& frame) {
    const std::size_t padding =
        frame.has(Frame::padded) ? static_cast<unsigned char>(direction.prefix[0]) : 0;
    const std::size_t rest = frame.length - direction.prefix_size;
    direction.content = rest >= padding ? rest - padding : 0;
    if (frame.type == FrameType::push_promise)
        direction.block.promised =
            number_of(std::string_view(direction.prefix).substr(direction.prefix_size - 4)) &
            0x7fffffff;
}

void Http2Connection::on_payload(MessageKind side, const Frame& frame, std::string_view data) {
    Direction& direction = of(side);
    if (frame.type == FrameType::data) {
        if (Stream* stream = find(frame.stream))
            message_of(*stream, side).wire_bytes += data.size();
    } else if (direction.block.open) {
        direction.block.wire += data.size();
    }
    if (direction.prefix.size() < direction.prefix_size) {
        const std::size_t take =
            std::min(direction.prefix_size - direction.prefix.size(), data.size());
        direction.prefix += data.substr(0, take);
        data.remove_prefix(take);
        if (direction.prefix.size() == direction.prefix_size)
            finish_prefix(direction, frame);
    }
    const std::size_t take = std::min<std::uint64_t>(direction.content, data.size());
    direction.content -= take;
    if (take > 0)
        content(side, frame, data.substr(0, take));
}

void Http2Connection::on_missing(MessageKind side, const Frame& frame, std::uint64_t length) {
    Direction& direction = of(side);
    direction.hole = true;
    if (frame.type == FrameType::data) {
        if (Stream* stream = find(frame.stream))
            message_of(*stream, side).wire_bytes += length;
    } else if (direction.block.open) {
        direction.block.wire += length;
        direction.block.damaged = true;
    }
    if (direction.prefix.size() < direction.prefix_size) {
        const std::uint64_t take =
            std::min<std::uint64_t>(direction.prefix_size - direction.prefix.size(), length);
        // Padding that is not known counts as content.
        direction.prefix.append(take, '\0');
        length -= take;
        if (direction.prefix.size() == direction.prefix_size)
            finish_prefix(direction, frame);
    }
    const std::uint64_t take = std::min(direction.content, length);
    direction.content -= take;
    if (frame.type != FrameType::data || take == 0)
        return;
    if (Stream* stream = find(frame.stream)) {
        message_of(*stream, side).body_bytes += take;
        stream->messages[static_cast<std::size_t>(side)].skip(take);
    }
}

void Http2Connection::content(MessageKind side, const Frame& frame, std::string_view data) {
    Direction& direction = of(side);
    switch (frame.type) {
    case FrameType::data: {
        Stream* const stream = find(frame.stream);
        if (!stream)
            return;
        Message& message = message_of(*stream, side);
        message.body_bytes += data.size();
        if (stream->transaction.grpc)
            stream->messages[static_cast<std::size_t>(side)].data(data);
        const std::size_t room =
            options_->body_limit - std::min<std::size_t>(options_->body_limit, message.body.size());
        const std::string_view part = data.substr(0, room);
        message.body.append(part);
        stream->cost += part.size();
        streams_cost_ += part.size();
        return;
    }
    case FrameType::headers:
    case FrameType::push_promise:
    case FrameType::continuation:
        if (!direction.block.open)
            return;
        if (direction.block.bytes.size() + data.size() > block_limit)
            direction.block.damaged = true;
        else
            direction.block.bytes.append(data);
        return;
    default:
        constexpr std::size_t enough = 8;
        direction.control.append(
            data.substr(0, enough - std::min(enough, direction.control.size())));
        return;
    }
}

void Http2Connection::on_frame_end(MessageKind side, const Frame& frame, Time now) {
    Direction& direction = of(side);
    switch (frame.type) {
    case FrameType::data:
        if (Stream* stream = find(frame.stream)) {
            Message& message = message_of(*stream, side);
            message.last_byte = std::max(now, message.first_byte);
            if (frame.has(Frame::end_stream))
                end_side(frame.stream, side, now);
        }
        break;
    case FrameType::headers:
    case FrameType::push_promise:
    case FrameType::continuation:
        if (frame.has(Frame::end_headers) && direction.block.open)
            finish_block(side, now);
        break;
    case FrameType::rst_stream: {
        Reset reset;
        reset.by_server = side == MessageKind::response;
        if (!direction.hole && direction.control.size() == 4)
            reset.code = number_of(direction.control);
        this->reset(frame.stream, reset, now);
        break;
    }
    case FrameType::goaway:
        if (!direction.hole && direction.control.size() == 8)
            go_away(side, direction.control, now);
        break;
    default: break;
    }
}

void Http2Connection::on_frames_lost(MessageKind side, bool malformed, Time) {
    Direction& direction = of(side);
    direction.block = {};
    lose_table(direction);
    if (std::exchange(direction.lost, true))
        return;
    ++(malformed ? counters_->malformed : counters_->holes);
    // Of which of them bytes are missing cannot be known.
    for (auto& [id, stream] : streams_) {
        if (!done(stream, side))
            message_of(stream, side).end = MessageEnd::unframed;
        stream.messages[static_cast<std::size_t>(side)].skip(UINT64_MAX);
    }
}

void Http2Connection::lose_table(Direction& direction) {
    if (direction.decoder.whole())
        ++counters_->tables_unknown;
    direction.decoder.lose();
}

// ---- heads ----

void Http2Connection::finish_block(MessageKind side, Time now) {
    Direction& direction = of(side);
    const Block block = std::exchange(direction.block, Block());
    Fields fields;
    if (block.damaged) {
        lose_table(direction);
        fields.damaged = true;
    } else {
        const bool whole = direction.decoder.whole();
        bool first = true;
        fields.damaged |=
            !direction.decoder.decode(block.bytes, [&](HpackText name, HpackText value) {
                fields.add(name, value, options_->keep_fields, std::exchange(first, false));
            });
        if (whole && !direction.decoder.whole()) {
            ++counters_->tables_unknown;
            ++counters_->malformed;
        }
    }
    if (block.promise) {
        if (side == MessageKind::response && block.promised != 0 && block.promised % 2 == 0 &&
            !find(block.promised) && !has_ended(block.promised)) {
            Stream& stream = add(block.promised);
            stream.transaction.pushed = true;
            fill_request(block.promised, stream, fields, block, now);
            stream.request_done = true;
        }
        return;
    }
    if (side == MessageKind::request)
        on_request(block.stream, fields, block, now);
    else
        on_response(block.stream, fields, block, now);
    if (block.end_stream)
        end_side(block.stream, side, now);
}

void Http2Connection::on_request(std::uint32_t id, Fields& fields, const Block& block, Time now) {
    if (id % 2 == 0)
        return;
    Stream* stream = find(id);
    if (stream && stream->transaction.request.seen)
        return fill_trailers(*stream, MessageKind::request, fields, block, now);
    if (!stream) {
        // New ones have higher numbers; of those that were opened before one looked, trailers may come.
        if ((asked_ && id <= last_asked_) || fields.begins_regular)
            return;
        stream = &add(id);
    }
    last_asked_ = std::max(last_asked_, id);
    asked_ = true;
    stream->early = false;
    fill_request(id, *stream, fields, block, now);
    stream->request_done = false;
    if (block.begin.numbered) {
        stream->transaction.asked_at = block.begin.at;
        numbers_.remember(block.begin.at);
    }
}

void Http2Connection::begin_message(Stream& stream, Message& message, Fields& fields,
                                    const Block& block, Time now) {
    message.seen = message.http2 = true;
    message.end = MessageEnd::complete;
    message.first_byte = block.begin.time;
    message.last_byte = std::max(now, message.first_byte);
    message.head_bytes = block.wire;
    message.wire_bytes += block.wire;
    message.absurd = fields.damaged;
    message.content_type = fields.content_type;
    message.content_encoding = std::move(fields.content_encoding);
    message.fields = std::move(fields.kept);
    message.unknown_fields = fields.unknown;
    stream.cost += fields.text;
    streams_cost_ += fields.text;
    note_grpc(stream, fields);
}

void Http2Connection::fill_request(std::uint32_t id, Stream& stream, Fields& fields,
                                   const Block& block, Time now) {
    Transaction& transaction = stream.transaction;
    transaction.stream = id;
    transaction.method = std::move(fields.method);
    transaction.host = std::move(fields.authority.empty() ? fields.host : fields.authority);
    transaction.target = std::move(fields.path);
    if (transaction.target.empty() && transaction.method == "CONNECT") // RFC 9113 8.5
        transaction.target = transaction.host;
    begin_message(stream, transaction.request, fields, block, now);
}

void Http2Connection::on_response(std::uint32_t id, Fields& fields, const Block& block, Time now) {
    Stream* stream = find(id);
    if (!stream) {
        if (has_ended(id) || fields.begins_regular || fields.damaged)
            return;
        stream = &add(id);
        stream->request_done = true; // as far as it will be seen
        stream->early = id % 2 == 1 && block.begin.numbered && (!asked_ || id > last_asked_);
    }
    if (stream->response_begun)
        return fill_trailers(*stream, MessageKind::response, fields, block, now);
    Transaction& transaction = stream->transaction;
    if (fields.status / 100 == 1 && !block.end_stream) {
        ++transaction.interim;
        return;
    }
    stream->response_begun = true;
    transaction.stream = id;
    transaction.status = fields.status;
    begin_message(*stream, transaction.response, fields, block, now);
}

void Http2Connection::fill_trailers(Stream& stream, MessageKind side, Fields& fields,
                                    const Block& block, Time now) {
    Message& message = message_of(stream, side);
    message.wire_bytes += block.wire;
    message.last_byte = std::max(now, message.first_byte);
    message.trailers = std::move(fields.kept);
    message.unknown_fields += fields.unknown;
    stream.cost += fields.text;
    streams_cost_ += fields.text;
    if (side == MessageKind::response)
        note_grpc(stream, fields);
}

void Http2Connection::note_grpc(Stream& stream, const Fields& fields) const {
    std::optional<GrpcCall>& grpc = stream.transaction.grpc;
    if (!grpc && is_grpc_type(fields.content_type))
        grpc.emplace();
    if (!grpc)
        return;
    if (fields.grpc_status)
        grpc->status = fields.grpc_status;
    if (!fields.grpc_message.empty())
        grpc->message = fields.grpc_message;
    if (fields.grpc_timeout != 0)
        grpc->deadline = fields.grpc_timeout;
}

// ---- streams ----

Http2Connection::Stream* Http2Connection::find(std::uint32_t id) {
    const auto found = streams_.find(id);
    return found == streams_.end() ? nullptr : &found->second;
}

Http2Connection::Stream& Http2Connection::add(std::uint32_t id) {
    constexpr std::size_t node_cost = 64;
    Stream& stream = streams_[id];
    stream.cost = sizeof(Stream) + node_cost;
    streams_cost_ += stream.cost;
    return stream;
}

bool Http2Connection::has_ended(std::uint32_t id) const {
    return std::find(ended_.begin(), ended_.end(), id) != ended_.end();
}

void Http2Connection::end_side(std::uint32_t id, MessageKind side, Time now) {
    Stream* const stream = find(id);
    if (!stream)
        return;
    Message& message = message_of(*stream, side);
    message.last_byte = std::max(now, message.first_byte);
    done(*stream, side) = true;
    settle(id);
}

void Http2Connection::settle(std::uint32_t id) {
    const auto found = streams_.find(id);
    if (found != streams_.end() && found->second.request_done && found->second.response_done &&
        !found->second.early)
        emit(found);
}

void Http2Connection::reset(std::uint32_t id, const Reset& reset, Time now) {
    const auto found = streams_.find(id);
    if (found == streams_.end())
        return;
    found->second.transaction.reset = reset;
    found->second.transaction.until = now;
    emit(found);
}

void Http2Connection::go_away(MessageKind side, std::string_view payload, Time now) {
    Reset reset;
    reset.by_server = side == MessageKind::response;
    reset.goaway = true;
    reset.code = number_of(payload.substr(4));
    const std::uint32_t last = number_of(payload) & 0x7fffffff;
    std::vector<std::uint32_t> refused;
    for (auto one = streams_.upper_bound(last); one != streams_.end(); ++one)
        if ((one->first % 2 == 1) == reset.by_server)
            refused.push_back(one->first);
    for (const std::uint32_t id : refused)
        this->reset(id, reset, now);
}

void Http2Connection::count_messages(Stream& stream) const {
    if (std::optional<GrpcCall>& grpc = stream.transaction.grpc) {
        grpc->sent = stream.messages[0].count();
        grpc->received = stream.messages[1].count();
    }
}

void Http2Connection::emit(Streams::iterator which) {
    auto node = streams_.extract(which);
    Stream& stream = node.mapped();
    streams_cost_ -= stream.cost;
    ended_[ended_at_++ % ended_.size()] = node.key();
    Transaction& transaction = stream.transaction;
    for (const auto side : {MessageKind::request, MessageKind::response}) {
        Message& message = message_of(stream, side);
        if (!message.seen)
            continue;
        if (!done(stream, side) && message.end == MessageEnd::complete)
            message.end = MessageEnd::cut;
        counters_->unframed += message.end == MessageEnd::unframed;
    }
    count_messages(stream);
    count_told(*counters_, transaction);
    emit_(transaction);
}

void Http2Connection::close(MessageKind side, Time now) {
    std::vector<std::uint32_t> over;
    for (auto& [id, stream] : streams_) {
        if (side == MessageKind::request) {
            if (!stream.request_done && stream.transaction.request.seen)
                stream.transaction.request.end = MessageEnd::cut;
            stream.request_done = true;
        } else if (!stream.response_done) {
            stream.transaction.closed = true;
            stream.transaction.until = now;
        }
        over.push_back(id);
    }
    for (const std::uint32_t id : over) {
        if (side == MessageKind::request)
            settle(id);
        else
            emit(streams_.find(id));
    }
    charge(now);
}

void Http2Connection::abandon(Time now) {
    while (!streams_.empty()) {
        Stream& stream = streams_.begin()->second;
        if (stream.transaction.request.seen && !stream.response_done) {
            stream.transaction.waiting = true;
            stream.transaction.until = now;
        }
        emit(streams_.begin());
    }
    charge(now);
}

void Http2Connection::tick(Time now, Time patience) {
    std::vector<std::uint32_t> over;
    for (auto& [id, stream] : streams_) {
        Transaction& transaction = stream.transaction;
        const Time last = std::max(transaction.request.last_byte, transaction.response.last_byte);
        const bool doubtful = transaction.request.end == MessageEnd::unframed ||
                              transaction.response.end == MessageEnd::unframed;
        if ((doubtful && last + doubt_patience < now) ||
            (stream.early && last + early_patience < now)) {
            over.push_back(id);
            continue;
        }
        // A call of gRPC may go on for as long as it likes: it is told of as well while it does.
        if (patience == 0 || stream.stall_told || !transaction.request.seen ||
            (stream.response_begun && !transaction.grpc) ||
            transaction.request.first_byte + patience > now)
            continue;
        stream.stall_told = true;
        count_messages(stream);
        Transaction told = transaction;
        told.waiting = told.stalled = true;
        told.until = now;
        if (!stream.request_done)
            told.request.end = MessageEnd::cut;
        if (stream.response_begun)
            told.response.end = MessageEnd::cut;
        ++counters_->stalled;
        emit_(told);
    }
    for (const std::uint32_t id : over) {
        Stream& stream = streams_.find(id)->second;
        if (!stream.early || stream.response_done)
            emit(streams_.find(id));
        else
            stream.early = false;
    }
    charge(now);
}

std::uint64_t Http2Connection::skippable(MessageKind side) const {
    const Direction& direction = of(side);
    return direction.reader.in_data() && options_->body_limit == 0 ? direction.reader.remaining()
                                                                   : 0;
}

// ---- memory ----

std::size_t Http2Connection::held() const {
    std::size_t bytes = streams_cost_;
    for (const auto& direction : directions_)
        bytes += direction->block.bytes.size() + direction->decoder.held();
    return bytes;
}

void Http2Connection::charge(Time now) {
    constexpr std::size_t spared = 4096; // what any connection may hold
    share_.set(held());
    while ((share_.exceeded() && share_.bytes() > spared) || streams_.size() > stream_limit) {
        ++counters_->dropped;
        if (!streams_.empty()) {
            Transaction& transaction = streams_.begin()->second.transaction;
            transaction.until = now;
            emit(streams_.begin());
        } else {
            for (const auto& direction : directions_) {
                direction->block.damaged |= direction->block.open;
                direction->block.bytes = {};
                lose_table(*direction);
            }
        }
        share_.set(held());
    }
}

} // namespace netctl::trace
