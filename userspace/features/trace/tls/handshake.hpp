// SPDX-License-Identifier: GPL-2.0-only
//
// What two directions of bytes say of the TLS handshake that they begin with: RFC 8446 (TLS 1.3), RFC 5246 (TLS 1.2) and
// older, without keys. Stands alone: bytes and holes go in, in order by direction.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace netctl::trace::tls {

/// Nanoseconds since the epoch.
using Time = std::uint64_t;

/// An alert that ended it (RFC 8446 6).
struct Alert {
    bool by_client = false;
    std::optional<std::uint8_t> description; ///< not there: it was encrypted
};

enum class Outcome : std::uint8_t {
    done,       ///< both sides have finished
    alert,      ///< one side said that it failed
    closed,     ///< the connection ended before
    unfinished, ///< it was under way when tracing ended, or bytes are missing that would tell
};

/// In host byte order.
struct Handshake {
    Time began = 0; ///< the ClientHello's first byte
    Time ended = 0; ///< what decided the result, or the last that was seen
    Outcome result = Outcome::unfinished;
    std::uint16_t offered_version = 0; ///< the highest: 0x0303 is TLS 1.2
    bool answered = false;             ///< there was a ServerHello, which says what follows
    std::uint16_t version = 0;
    std::uint16_t cipher = 0;
    std::string server_name;          ///< SNI; empty: none
    std::vector<std::string> offered; ///< protocols of ALPN, as the client names them
    std::string
        protocol; ///< ALPN: what the server chose; in TLS 1.3 it says so encrypted, and this is empty
    /// Of an earlier session, or with a key that both had; not known without a ServerHello, or if bytes are missing.
    std::optional<bool> resumed;
    bool retried = false;    ///< the server asked for another ClientHello (HelloRetryRequest)
    bool early_data = false; ///< the client offered to send before the server has answered
    bool missing = false;    ///< bytes that would tell are missing
    std::optional<Alert> alert;
    std::optional<bool> closed_by_client; ///< Outcome::closed: who was first, if that was seen
};

class HandshakeReader {
  public:
    enum Side : unsigned { a = 0, b = 1 };
    /// Called once, when the result is known.
    using Emit = std::function<void(const Handshake&)>;

    explicit HandshakeReader(Emit emit) : emit_(std::move(emit)) {}

    /// What `side` sent: one call's or one segment's. A handshake may begin with any of them, so that protocols which
    /// change to TLS (STARTTLS) are seen, too.
    void data(Side side, std::string_view data, Time now);
    /// So many bytes of it are not there.
    void gap(Side side, std::uint64_t length, Time now);
    /// `side` sends no more.
    void close(Side side, Time now);
    /// The connection is gone, with a reset or without a word.
    void close(Time now);
    /// Nobody looks any longer: tells what is under way.
    void abandon(Time now);

    /// A ClientHello was read.
    bool begun() const { return begun_; }
    /// The result was told: nothing more will come.
    bool over() const { return over_; }
    /// The sender of the ClientHello; valid if begun().
    Side client() const { return client_; }
    /// Bytes that are held, of both directions.
    std::size_t memory() const;

  private:
    /// Of one direction.
    struct Stream {
        bool within = false; ///< records are under way
        bool lost = false;   ///< where records begin is no longer known
        bool hidden = false; ///< ChangeCipherSpec was sent
        bool closed = false;
        Time first = 0;         ///< when they began
        std::string header;     ///< of the record that begins
        std::uint8_t type = 0;  ///< of the record under way
        std::uint32_t rest = 0; ///< of its content
        std::uint32_t size = 0;
        std::string content;       ///< of an alert
        std::string message;       ///< the handshake message under way, its header first
        std::uint32_t passing = 0; ///< of a message that nobody reads, what is left
        unsigned finished = 0;     ///< records that hold its Finished, or come behind
    };

    void records(Side side, std::string_view data, Time now);
    void begin_record(Side side, Time now);
    void end_record(Side side, Time now);
    void messages(Side side, std::string_view data);
    void on_message(Side side, std::string_view message);
    void client_hello(Side side, std::string_view body);
    void server_hello(std::string_view body);
    void sealed(Side side, std::uint32_t size, Time now);
    void on_alert(Side side, std::string_view content, Time now);
    void failed(Side side, std::optional<std::uint8_t> description, Time now);
    void lose(Side side);
    void end(Outcome result, Time now);
    bool is_encrypted(const Stream& stream) const {
        return stream.hidden && handshake_.answered && handshake_.version < 0x0304;
    }

    Emit emit_;
    std::array<Stream, 2> streams_;
    Handshake handshake_;
    Side client_ = a;
    bool begun_ = false;
    bool over_ = false;
    bool server_done_ = false; ///< ServerHelloDone: a full handshake of TLS 1.2 or older
};

} // namespace netctl::trace::tls
