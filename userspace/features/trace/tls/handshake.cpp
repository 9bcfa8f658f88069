// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/tls/handshake.hpp"

#include <algorithm>
#include <utility>

namespace netctl::trace::tls {

namespace {

constexpr std::uint8_t change_cipher_spec = 20, alert_record = 21, handshake_record = 22,
                       application_data = 23, heartbeat = 24;
constexpr std::uint8_t client_hello_type = 1, server_hello_type = 2, server_hello_done_type = 14;
constexpr std::size_t header_size = 5, message_header = 4;
/// 2^14, and what encryption may add (RFC 5246 6.2.3).
constexpr std::uint32_t record_limit = 16384 + 2048;
/// Of a hello that is read.
constexpr std::uint32_t hello_limit = 65536;
constexpr std::uint16_t tls13 = 0x0304;
constexpr std::uint16_t extension_server_name = 0, extension_alpn = 16, extension_early_data = 42,
                        extension_pre_shared_key = 41, extension_versions = 43;
/// RFC 8446 4.1.3: the random of a ServerHello that is a HelloRetryRequest.
constexpr std::string_view retry_random{
    "\xCF\x21\xAD\x74\xE5\x9A\x61\x11\xBE\x1D\x8C\x02\x1E\x65\xB8\x91"
    "\xC2\xA2\x11\x16\x7A\xBB\x8C\x5E\x07\x9E\x09\xE2\xC8\xA8\x33\x9C",
    32};

std::uint8_t byte_at(std::string_view bytes, std::size_t at) {
    return static_cast<std::uint8_t>(bytes[at]);
}

std::uint32_t number_at(std::string_view bytes, std::size_t at, std::size_t size) {
    std::uint32_t number = 0;
    for (std::size_t i = 0; i < size; ++i)
        number = number << 8 | byte_at(bytes, at + i);
    return number;
}

/// Fields one behind the other. Once one is not there, none is.
class Fields {
  public:
    explicit Fields(std::string_view bytes) : bytes_(bytes) {}

    bool good() const { return good_; }
    bool empty() const { return bytes_.empty(); }
    std::uint32_t number(std::size_t size) {
        const std::string_view bytes = take(size);
        return good_ ? number_at(bytes, 0, size) : 0;
    }
    std::string_view take(std::size_t size) {
        if (!good_ || bytes_.size() < size) {
            good_ = false;
            bytes_ = {};
            return {};
        }
        const std::string_view taken = bytes_.substr(0, size);
        bytes_.remove_prefix(size);
        return taken;
    }
    /// A vector behind its length of so many bytes.
    std::string_view vector(std::size_t size) { return take(number(size)); }

  private:
    std::string_view bytes_;
    bool good_ = true;
};

/// RFC 8701: numbers that mean nothing, lest anybody count on there being no others.
bool is_grease(std::uint32_t number) {
    return (number & 0x0f0f) == 0x0a0a && (number >> 8) == (number & 0xff);
}

bool is_version(std::uint32_t version) {
    return version >= 0x0300 && version <= tls13;
}

/// Whether these bytes, or what there is of them, begin a record with a hello, `type`, in it.
bool begins_hello(std::string_view bytes, std::uint8_t type) {
    if (bytes.empty() || byte_at(bytes, 0) != handshake_record)
        return false;
    if (bytes.size() > 1 && byte_at(bytes, 1) != 3)
        return false;
    if (bytes.size() > 2 && byte_at(bytes, 2) > 4)
        return false;
    if (bytes.size() >= header_size) {
        const std::uint32_t length = number_at(bytes, 3, 2);
        if (length == 0 || length > record_limit)
            return false;
    }
    return bytes.size() <= header_size || byte_at(bytes, header_size) == type;
}

/// The same of what a server may answer with: a hello, or an alert.
bool begins_answer(std::string_view bytes) {
    if (byte_at(bytes, 0) == handshake_record)
        return begins_hello(bytes, server_hello_type);
    return byte_at(bytes, 0) == alert_record && (bytes.size() < 2 || byte_at(bytes, 1) == 3) &&
           (bytes.size() < 3 || byte_at(bytes, 2) <= 4) &&
           (bytes.size() < header_size || number_at(bytes, 3, 2) == 2);
}

} // namespace

std::size_t HandshakeReader::memory() const {
    std::size_t held = sizeof *this;
    for (const Stream& stream : streams_)
        held += stream.message.capacity() + stream.content.capacity();
    return held;
}

void HandshakeReader::data(Side side, std::string_view data, Time now) {
    Stream& stream = streams_[side];
    if (over_ || stream.lost || data.empty())
        return;
    if (!stream.within) {
        // What follows a ClientHello's beginning is its sender's, whatever it looks like.
        const bool server = begun_ && side != client_;
        if (!(server ? begins_answer(data) : begins_hello(data, client_hello_type)))
            return;
        stream.within = true;
        stream.first = now;
    }
    records(side, data, now);
}

void HandshakeReader::records(Side side, std::string_view data, Time now) {
    Stream& stream = streams_[side];
    while (!data.empty() && !over_ && !stream.lost) {
        if (stream.rest == 0) {
            const std::size_t take = std::min(data.size(), header_size - stream.header.size());
            stream.header += data.substr(0, take);
            data.remove_prefix(take);
            if (stream.header.size() == header_size)
                begin_record(side, now);
            continue;
        }
        const std::string_view piece = data.substr(0, stream.rest);
        data.remove_prefix(piece.size());
        stream.rest -= static_cast<std::uint32_t>(piece.size());
        if (stream.type == handshake_record && !is_encrypted(stream))
            messages(side, piece);
        else if (stream.type == alert_record && stream.content.size() < 2)
            stream.content += piece.substr(0, 2 - stream.content.size());
        if (stream.rest == 0 && !over_ && !stream.lost)
            end_record(side, now);
    }
}

void HandshakeReader::begin_record(Side side, Time now) {
    Stream& stream = streams_[side];
    stream.type = byte_at(stream.header, 0);
    stream.rest = stream.size = number_at(stream.header, 3, 2);
    const bool sound = stream.type >= change_cipher_spec && stream.type <= heartbeat &&
                       byte_at(stream.header, 1) == 3 && stream.size <= record_limit;
    stream.header.clear();
    stream.content.clear();
    if (!sound)
        return lose(side);
    // What is in it does not matter, and may be long.
    if (stream.type == application_data)
        sealed(side, stream.size, now);
    else if (stream.rest == 0)
        end_record(side, now);
}

void HandshakeReader::end_record(Side side, Time now) {
    Stream& stream = streams_[side];
    switch (stream.type) {
    case change_cipher_spec:
        // Of TLS 1.3 it means nothing, and may come before the second ClientHello (RFC 8446 D.4).
        stream.hidden = true;
        break;
    case alert_record: on_alert(side, stream.content, now); break;
    case handshake_record:
        if (!is_encrypted(stream))
            break;
        // The Finished of TLS 1.2 and older.
        ++stream.finished;
        if (side != client_ && !handshake_.missing)
            handshake_.resumed = !server_done_;
        if (streams_[a].finished != 0 && streams_[b].finished != 0)
            end(Outcome::done, now);
        break;
    default: break;
    }
}

void HandshakeReader::messages(Side side, std::string_view data) {
    Stream& stream = streams_[side];
    while (!data.empty() && !over_ && !stream.lost) {
        if (stream.passing != 0) {
            const auto take = std::min<std::size_t>(data.size(), stream.passing);
            data.remove_prefix(take);
            stream.passing -= static_cast<std::uint32_t>(take);
            continue;
        }
        std::string& message = stream.message;
        const std::size_t whole = message.size() < message_header
                                      ? message_header
                                      : message_header + number_at(message, 1, 3);
        const std::size_t take = std::min(data.size(), whole - message.size());
        message += data.substr(0, take);
        data.remove_prefix(take);
        if (message.size() < message_header)
            return;
        const std::uint32_t length = number_at(message, 1, 3);
        const std::uint8_t type = byte_at(message, 0);
        if (type != client_hello_type && type != server_hello_type) {
            if (type == server_hello_done_type && begun_ && side != client_) {
                server_done_ = true;
                handshake_.resumed = false;
            }
            stream.passing = length;
            message.clear();
        } else if (length > hello_limit) {
            return lose(side);
        } else if (message.size() == message_header + length) {
            const std::string read = std::exchange(message, {});
            on_message(side, read);
        }
    }
}

void HandshakeReader::on_message(Side side, std::string_view message) {
    const std::string_view body = message.substr(message_header);
    if (byte_at(message, 0) == client_hello_type) {
        if (!begun_ || (side == client_ && handshake_.retried))
            client_hello(side, body);
        return;
    }
    if (begun_ && side != client_ && !handshake_.answered)
        server_hello(body);
}

/// RFC 8446 4.1.2.
void HandshakeReader::client_hello(Side side, std::string_view body) {
    Fields hello(body);
    Handshake read;
    read.offered_version = static_cast<std::uint16_t>(hello.number(2));
    hello.take(32);
    hello.vector(1); // session
    const std::string_view ciphers = hello.vector(2);
    hello.vector(1); // compression
    if (!hello.good() || !is_version(read.offered_version) || ciphers.size() % 2 != 0)
        return lose(side);
    Fields extensions(hello.empty() ? std::string_view() : hello.vector(2));
    while (extensions.good() && !extensions.empty()) {
        const std::uint32_t type = extensions.number(2);
        const std::string_view content = extensions.vector(2);
        if (!extensions.good())
            break;
        Fields fields(content);
        if (type == extension_server_name) {
            Fields names(fields.vector(2));
            const bool host = names.number(1) == 0; // the only kind that there is (RFC 6066 3)
            const std::string_view name = names.vector(2);
            if (host && names.good())
                read.server_name = name;
        } else if (type == extension_alpn) {
            Fields names(fields.vector(2));
            while (names.good() && !names.empty()) {
                const std::string_view name = names.vector(1);
                const bool grease = name.size() == 2 && is_grease(number_at(name, 0, 2));
                if (names.good() && !grease)
                    read.offered.emplace_back(name);
            }
        } else if (type == extension_versions) {
            read.offered_version = 0;
            Fields versions(fields.vector(1));
            while (versions.good() && !versions.empty()) {
                const auto version = static_cast<std::uint16_t>(versions.number(2));
                if (versions.good() && is_version(version))
                    read.offered_version = std::max(read.offered_version, version);
            }
        } else if (type == extension_early_data) {
            read.early_data = true;
        }
    }
    if (!hello.good())
        return lose(side);
    if (begun_) { // the second one, whose offers count
        read.began = handshake_.began;
        read.missing = handshake_.missing;
        read.retried = true;
        // Early data is refused with the first one.
        handshake_ = std::move(read);
        return;
    }
    begun_ = true;
    client_ = side;
    read.began = streams_[side].first;
    handshake_ = std::move(read);
    handshake_.missing = streams_[1 - side].lost;
}

/// RFC 8446 4.1.3.
void HandshakeReader::server_hello(std::string_view body) {
    const Side server = client_ == a ? b : a;
    Fields hello(body);
    auto version = static_cast<std::uint16_t>(hello.number(2));
    const std::string_view random = hello.take(32);
    hello.vector(1);
    const auto cipher = static_cast<std::uint16_t>(hello.number(2));
    hello.number(1);
    if (!hello.good() || !is_version(version))
        return lose(server);
    bool keyed = false;
    std::string protocol;
    Fields extensions(hello.empty() ? std::string_view() : hello.vector(2));
    while (extensions.good() && !extensions.empty()) {
        const std::uint32_t type = extensions.number(2);
        const std::string_view content = extensions.vector(2);
        if (!extensions.good())
            break;
        Fields fields(content);
        if (type == extension_versions && content.size() == 2) {
            version = static_cast<std::uint16_t>(fields.number(2));
        } else if (type == extension_pre_shared_key) {
            keyed = true;
        } else if (type == extension_alpn) {
            Fields names(fields.vector(2));
            const std::string_view name = names.vector(1);
            if (names.good())
                protocol = name;
        }
    }
    if (random == retry_random) {
        handshake_.retried = true;
        return;
    }
    handshake_.answered = true;
    handshake_.version = version;
    handshake_.cipher = cipher;
    handshake_.protocol = std::move(protocol);
    if (version >= tls13)
        handshake_.resumed = keyed;
    if (handshake_.retried)
        handshake_.early_data = false;
}

/// A record of TLS 1.3's whose content is encrypted, or of application data.
void HandshakeReader::sealed(Side side, std::uint32_t size, Time now) {
    Stream& stream = streams_[side];
    if (!begun_ || !handshake_.answered)
        return; // early data
    if (handshake_.version < tls13) {
        // False start (RFC 7918): the server's Finished was not waited for.
        if (!handshake_.missing)
            handshake_.resumed = !server_done_;
        return end(Outcome::done, now);
    }
    const Stream& server = streams_[client_ == a ? b : a];
    if (side == client_ && server.finished == 0)
        return;
    // An alert has two bytes, one byte tells what it is, and eight or sixteen authenticate it: no message of a
    // handshake is as short, as each has four bytes before its content. What a client sends early may be.
    if (size == 2 + 1 + 16 || size == 2 + 1 + 8) {
        if (side != client_ || !handshake_.early_data)
            return failed(side, std::nullopt, now);
        return;
    }
    ++stream.finished;
    if (side == client_)
        end(Outcome::done, now);
}

void HandshakeReader::on_alert(Side side, std::string_view content, Time now) {
    const Stream& stream = streams_[side];
    if (!begun_)
        return;
    if (is_encrypted(stream) || stream.size != 2)
        return failed(side, std::nullopt, now);
    constexpr std::uint8_t close_notify = 0, user_canceled = 90, fatal = 2;
    const std::uint8_t description = byte_at(content, 1);
    if (description == close_notify || description == user_canceled) {
        handshake_.closed_by_client = side == client_;
        return end(Outcome::closed, now);
    }
    // Warnings of TLS 1.2 go on; in TLS 1.3 the level means nothing (RFC 8446 6).
    if (byte_at(content, 0) == fatal || (handshake_.answered && handshake_.version >= tls13))
        failed(side, description, now);
}

void HandshakeReader::failed(Side side, std::optional<std::uint8_t> description, Time now) {
    handshake_.alert = Alert{side == client_, description};
    end(Outcome::alert, now);
}

void HandshakeReader::gap(Side side, std::uint64_t length, Time now) {
    Stream& stream = streams_[side];
    if (over_ || length == 0 || stream.lost)
        return;
    if (!stream.within) {
        // Which may have been the answer.
        if (begun_ && side != client_)
            lose(side);
        return;
    }
    // What nobody reads may be missing.
    const bool handshake = stream.type == handshake_record && !is_encrypted(stream);
    const bool unread = handshake ? length <= stream.passing : stream.type != alert_record;
    if (!unread || length > stream.rest)
        return lose(side);
    if (handshake)
        stream.passing -= static_cast<std::uint32_t>(length);
    stream.rest -= static_cast<std::uint32_t>(length);
    if (stream.rest == 0)
        end_record(side, now);
}

/// Nothing of this side is understood from here on.
void HandshakeReader::lose(Side side) {
    Stream& stream = streams_[side];
    stream.header.clear();
    stream.message = {};
    if (!begun_) {
        // No handshake, or none that can be read; another may begin.
        stream.within = false;
        stream.rest = stream.passing = 0;
        return;
    }
    stream.lost = true;
    handshake_.missing = true;
}

void HandshakeReader::close(Side side, Time now) {
    if (over_ || std::exchange(streams_[side].closed, true))
        return;
    if (!begun_)
        return;
    handshake_.closed_by_client = side == client_;
    end(Outcome::closed, now);
}

void HandshakeReader::close(Time now) {
    if (!over_ && begun_)
        end(Outcome::closed, now);
}

void HandshakeReader::abandon(Time now) {
    if (!over_ && begun_)
        end(Outcome::unfinished, now);
}

void HandshakeReader::end(Outcome result, Time now) {
    over_ = true;
    handshake_.result = result;
    // Which of the two it was cannot be told any more.
    if (handshake_.missing && result == Outcome::closed)
        handshake_.result = Outcome::unfinished;
    handshake_.ended = std::max(now, handshake_.began);
    for (Stream& stream : streams_)
        stream = {};
    emit_(handshake_);
}

} // namespace netctl::trace::tls
