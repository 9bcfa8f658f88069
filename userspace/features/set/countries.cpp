// SPDX-License-Identifier: GPL-2.0-only
#include "features/set/countries.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <map>
#include <optional>

#include <fmt/format.h>

#include "datapath/set_text_reader.hpp"

namespace netctl::set {

namespace {

constexpr std::string_view line_form = "registry|cc|type|start|value|date|status";

bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

std::optional<std::uint64_t> decimal(std::string_view text) {
    std::uint64_t number = 0;
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (status != std::errc{} || end != text.data() + text.size())
        return std::nullopt;
    return number;
}

/// What stands between the bars.
std::vector<std::string_view> fields_of(std::string_view line) {
    std::vector<std::string_view> fields;
    for (;;) {
        const std::size_t bar = std::min(line.find('|'), line.size());
        fields.push_back(line.substr(0, bar));
        if (bar == line.size())
            return fields;
        line.remove_prefix(bar + 1);
    }
}

class RegistryReader {
  public:
    RegistryReader(std::string_view source, const std::set<std::string>& countries)
        : source_(source), countries_(countries), elements_(datapath::SetType::cidr, source) {}

    RegistryNetworks run(std::string_view text) {
        std::size_t number = 0;
        for (std::size_t begin = 0; begin < text.size();) {
            const std::size_t end = std::min(text.find('\n', begin), text.size());
            std::string_view line = text.substr(begin, end - begin);
            begin = end + 1;
            number++;
            if (line.ends_with('\r'))
                line.remove_suffix(1);
            if (line.empty() || line.starts_with('#'))
                continue;
            std::string_view part = line;
            if (const auto read = this->line(line, part); !read)
                elements_.bad_line(number, line, part, read.error());
        }
        for (const auto& [type, promised] : promised_)
            if (records_[type] != promised)
                elements_.bad(std::string(source_),
                              Error::usage(fmt::format("it has {} records of {}, and says that "
                                                       "they are {}",
                                                       records_[type], type, promised),
                                           "the list is cut: fetch it anew"));
        if (promised_.empty() && records_.empty())
            elements_.bad(std::string(source_),
                          Error::usage("there is no record in it",
                                       fmt::format("lines of registries: {}", line_form)));
        return {std::move(elements_).finish(), std::move(found_)};
    }

  private:
    /// `part` is what an error is about.
    Result<> line(std::string_view line, std::string_view& part) {
        const std::vector<std::string_view> fields = fields_of(line);
        if (fields.size() >= 6 && fields[5] == "summary") {
            part = fields[4];
            const auto count = decimal(fields[4]);
            if (!count)
                return Error::usage(fmt::format("'{}' is no number of records", fields[4]));
            promised_[std::string(fields[2])] += *count;
            return {};
        }
        if (fields.size() < 7)
            return Error::usage("this is no line of a registry's list", line_form);
        if (fields[0].find_first_not_of("0123456789.") == std::string_view::npos) {
            part = fields[0];
            if (fields[0] != "2" && !fields[0].starts_with("2."))
                return Error::usage(fmt::format("this is version '{}' of such lists", fields[0]),
                                    "known is version 2");
            return {};
        }
        return record(fields, part);
    }

    Result<> record(const std::vector<std::string_view>& fields, std::string_view& part) {
        constexpr std::array types{"ipv4", "ipv6", "asn"};
        constexpr std::array states{"allocated", "assigned", "available", "reserved"};
        const std::string_view country = fields[1], type = fields[2], state = fields[6];
        part = type;
        if (std::find(types.begin(), types.end(), type) == types.end())
            return Error::usage(fmt::format("'{}' is no type of a record", type), line_form);
        part = state;
        if (std::find(states.begin(), states.end(), state) == states.end())
            return Error::usage(fmt::format("'{}' is no status of a record", state), line_form);
        records_[std::string(type)]++;
        const bool given_out = state == "allocated" || state == "assigned";
        if (type == "asn" || !given_out || !countries_.contains(std::string(country)))
            return {};
        NETCTL_TRY(type == "ipv4" ? ipv4(fields[3], fields[4], part)
                                  : ipv6(fields[3], fields[4], part));
        found_.emplace(country);
        return {};
    }

    Result<> ipv4(std::string_view start, std::string_view value, std::string_view& part) {
        part = start;
        const Address first = NETCTL_TRY(Address::parse(start));
        if (first.family != Family::ipv4)
            return Error::usage(fmt::format("'{}' is no IPv4 address", start));
        std::uint64_t number = 0;
        for (unsigned byte = 0; byte < 4; byte++)
            number = number << 8 | first.bytes[byte];
        part = value;
        const auto count = decimal(value);
        constexpr std::uint64_t all = std::uint64_t{1} << 32;
        if (!count || *count == 0 || *count > all - number)
            return Error::usage(
                fmt::format("'{}' is no number of addresses from {} on", value, start));
        Address last;
        number += *count - 1;
        for (unsigned byte = 4; byte-- > 0; number >>= 8)
            last.bytes[byte] = static_cast<std::uint8_t>(number);
        part = start;
        return elements_.add(fmt::format("{}-{}", start, last.to_string()));
    }

    Result<> ipv6(std::string_view start, std::string_view value, std::string_view& part) {
        part = start;
        if (NETCTL_TRY(Address::parse(start)).family != Family::ipv6)
            return Error::usage(fmt::format("'{}' is no IPv6 address", start));
        part = value;
        const auto length = decimal(value);
        if (!length || *length > 128)
            return Error::usage(fmt::format("'{}' is no length of an IPv6 prefix", value));
        return elements_.add(fmt::format("{}/{}", start, *length));
    }

    std::string_view source_;
    const std::set<std::string>& countries_;
    datapath::ElementReader elements_;
    std::set<std::string> found_;
    std::map<std::string, std::uint64_t> promised_, records_; ///< by type
};

bool are_halves(const Prefix& low, const Prefix& high) {
    return low.length == high.length && low.length > 0 && !low.address.bit(low.length - 1) &&
           Prefix{low.address, static_cast<std::uint8_t>(low.length - 1)}.contains(high.address);
}

} // namespace

Result<std::set<std::string>> parse_countries(std::string_view text) {
    std::set<std::string> countries;
    for (;;) {
        const std::size_t comma = std::min(text.find(','), text.size());
        std::string code(text.substr(0, comma));
        if (code.size() != 2 || !is_letter(code[0]) || !is_letter(code[1]))
            return Error::usage(fmt::format("'{}' is no code of a country", code),
                                "two letters of ISO 3166, more of them with commas: DE,FR");
        for (char& letter : code)
            letter = static_cast<char>(letter & ~0x20);
        countries.insert(std::move(code));
        if (comma == text.size())
            return countries;
        text.remove_prefix(comma + 1);
    }
}

RegistryNetworks read_registry(std::string_view text, std::string_view source,
                               const std::set<std::string>& countries) {
    return RegistryReader(source, countries).run(text);
}

std::vector<Prefix> fewest_prefixes(std::vector<Prefix> prefixes) {
    std::sort(prefixes.begin(), prefixes.end());
    std::vector<Prefix> fewest;
    for (Prefix prefix : prefixes) {
        if (!fewest.empty() && fewest.back().length <= prefix.length &&
            fewest.back().contains(prefix.address))
            continue;
        while (!fewest.empty() && are_halves(fewest.back(), prefix)) {
            prefix = fewest.back();
            prefix.length--;
            fewest.pop_back();
        }
        fewest.push_back(prefix);
    }
    return fewest;
}

} // namespace netctl::set
