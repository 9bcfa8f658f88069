// SPDX-License-Identifier: GPL-2.0-only
//
// What the readers of lines and of JSON share.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "datapath/set_text.hpp"

namespace netctl::datapath {

class ElementReader {
  public:
    ElementReader(SetType type, std::string_view source) : type_(type), source_(source) {}

    /// An element or a range in text.
    Result<> add(std::string_view text, std::uint32_t ttl = 0, bool absent = false);
    /// What cannot be read: `where` is the line, or what stands for it.
    void bad(const std::string& where, Error error);
    void bad_line(std::size_t number, std::string_view line, std::string_view part,
                  const Error& error);
    /// Reads JSON; whether it was some.
    bool json(std::string_view text);
    /// Reads lines, of which the first has this number.
    void lines(std::string_view text, std::size_t first = 1);
    ReadElements finish() && { return std::move(read_); }

  private:
    Result<> add_range(std::string_view low, std::string_view high, std::uint32_t ttl, bool absent);
    Result<> line(std::string_view line, std::string_view& part);
    Result<> ipset(std::string_view rest, std::string_view& part);
    /// What `set list` prints behind an element.
    Result<> suffix(std::string_view words, std::uint32_t& ttl, bool& absent, bool& expired);

    SetType type_;
    std::string source_;
    std::string ipset_name_; ///< of the set that an `ipset save` is about
    ReadElements read_;
};

/// The fewest prefixes that together are the addresses from `low` to `high`, both included and of one
/// family, in ascending order; none if `high` comes before `low`.
std::vector<Prefix> prefixes_of_range(const Address& low, const Address& high);

/// A time as Go prints it, "3h59m12.5s", in whole seconds, at least 1; 0 if it is over, nothing if it is none.
std::optional<std::uint32_t> go_duration(std::string_view text);

} // namespace netctl::datapath
