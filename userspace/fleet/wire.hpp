// SPDX-License-Identifier: GPL-2.0-only
//
// The little of protobuf's encoding that etcd's messages need: varints and byte strings
// (protobuf's "Encoding" page).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace netctl::fleet {

/// Builds a message. Fields that are zero or empty are left out, as proto3 has it.
class WireWriter {
  public:
    WireWriter& number(unsigned field, std::uint64_t value);
    /// A zero that is to be said, as one of a `oneof` is.
    WireWriter& zero(unsigned field);
    WireWriter& bytes(unsigned field, std::string_view value);
    /// A message in a message, which is there even if it is empty.
    WireWriter& message(unsigned field, const WireWriter& value);
    const std::string& text() const { return text_; }

  private:
    void varint(std::uint64_t value);
    void block(unsigned field, std::string_view value);

    std::string text_;
};

/// A message's fields: what it does not know, it skips.
struct WireMessage {
    std::map<unsigned, std::uint64_t> numbers;
    std::map<unsigned, std::vector<std::string_view>> blocks; ///< of the text that it was read from

    std::uint64_t number(unsigned field) const;
    std::string_view block(unsigned field) const;
    const std::vector<std::string_view>& all(unsigned field) const;
};
/// Nothing if it is cut or no message.
std::optional<WireMessage> read_wire(std::string_view text);

} // namespace netctl::fleet
