// SPDX-License-Identifier: GPL-2.0-only
//
// The head of a fleet: which release is to be in force. It is what is signed, and the only thing that all watch.
//
// Its file is what `signify -S -e` writes: two lines of signature for each signer, and behind them the message, which
// is a JSON document of one line. The body that it names is covered by its hash.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.hpp"
#include "core/result.hpp"
#include "fleet/keys.hpp"

namespace netctl::fleet {

constexpr std::size_t most_head_bytes = std::size_t{16} << 10;
constexpr std::size_t most_body_bytes = std::size_t{4} << 20;

struct Head {
    std::string fleet;
    std::uint64_t release = 0;  ///< from 1; strictly rising
    std::string sha256;         ///< of the body
    std::uint64_t size = 0;     ///< of the body, bytes, unpacked
    std::int64_t published = 0; ///< seconds since 1970
    std::int64_t not_after = 0; ///< 0: for ever
    bool at_once = false;       ///< all stages in one, as a way back has it

    bool operator==(const Head&) const = default;
};

/// `2026-11-30T11:00:00Z`, and back; nothing but that form.
std::string second_text(std::int64_t seconds);
Result<std::int64_t> parse_second(const std::string& text);

/// Its members by their names, in the order in which they are signed; times as second_text().
Json head_json(const Head& head);
/// The message that is signed.
std::string head_message(const Head& head);
Result<Head> parse_head_message(std::string_view message);

/// A head's file, not believed yet.
struct Envelope {
    std::vector<std::string> signatures; ///< 74 bytes each
    std::string message;
};
Result<Envelope> parse_envelope(std::string_view file);

/// The names of the keys that have signed it: each key once, whatever it is called and however often it signed.
std::vector<std::string> signers(const Envelope& envelope, const std::vector<PublicKey>& keys);

/// The head in a file that at least `threshold` of the keys have signed. Nothing of it is looked at before.
Result<Head> open_head(std::string_view file, const std::vector<PublicKey>& keys,
                       unsigned threshold);

} // namespace netctl::fleet
