// SPDX-License-Identifier: GPL-2.0-only
//
// Lists in JSON: what other tools write, each recognised by the names of its members.
#include <algorithm>
#include <limits>
#include <optional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/rule_lexer.hpp"
#include "datapath/set_text_reader.hpp"

namespace netctl::datapath {

namespace {

/// Members in a list, as they come: lists of a million elements have a tree for each otherwise.
using json = nlohmann::ordered_json;

const json* member(const json& object, const char* name) {
    const auto found = object.find(name);
    return found == object.end() ? nullptr : &*found;
}

std::string text_in(const json& value) {
    return value.is_string() ? value.get<std::string>()
                             : value.dump(-1, ' ', false, json::error_handler_t::replace);
}

/// Walks through a document and hands what it finds in it to the reader.
class JsonReader {
  public:
    JsonReader(ElementReader& reader, std::string source)
        : reader_(reader), source_(std::move(source)) {}

    void document(const json& value) {
        if (value.is_array()) {
            for (const json& element : value)
                one(element);
        } else if (const json* objects = member(value, "nftables");
                   objects && objects->is_array()) {
            nft(*objects);
        } else {
            one(value);
        }
    }

  private:
    void nft(const json& objects) {
        std::string name;
        for (const json& object : objects) {
            const json* set = object.is_object() ? member(object, "set") : nullptr;
            if (set == nullptr || !set->is_object())
                continue;
            const json* own = member(*set, "name");
            const std::string here = own ? text_in(*own) : "";
            if (!name.empty() && here != name)
                return reader_.bad(
                    source_, Error::usage(fmt::format("it has the sets '{}' and '{}'", name, here),
                                          "`nft -j list set FAMILY TABLE NAME` writes one set"));
            name = here;
            if (const json* elements = member(*set, "elem"); elements && elements->is_array())
                for (const json& element : *elements)
                    one(element);
        }
    }

    void one(const json& value) {
        if (value.is_object()) {
            if (const json* decisions = member(value, "decisions")) { // CrowdSec's alerts
                if (decisions->is_array())
                    for (const json& decision : *decisions)
                        one(decision);
                return;
            }
            const json* type = member(value, "type");
            if (type && *type == "metadata") // the last line of Spamhaus' lists
                return;
        }
        number_++;
        Result<> read = element(value);
        if (read)
            return;
        std::string text = text_in(value);
        constexpr std::size_t longest = 80;
        if (text.size() > longest)
            text = text.substr(0, longest) + "…";
        reader_.bad(fmt::format("{}: element {}, {}", source_, number_, text),
                    std::move(read).error());
    }

    static Error unknown() {
        return Error::usage("not an element as netctl, nft, CrowdSec or Spamhaus write it");
    }

    Result<> element(const json& value, std::uint32_t ttl = 0) {
        if (value.is_string())
            return reader_.add(value.get_ref<const std::string&>(), ttl);
        if (value.is_number_unsigned())
            return reader_.add(std::to_string(value.get<std::uint64_t>()), ttl);
        if (!value.is_object())
            return unknown();
        if (const json* own = member(value, "element"))
            return of_netctl(value, *own);
        if (const json* inner = member(value, "elem"); inner && inner->is_object())
            return of_nft(*inner);
        if (const json* prefix = member(value, "prefix"); prefix && prefix->is_object()) {
            const json* address = member(*prefix, "addr");
            const json* length = member(*prefix, "len");
            if (address && length && address->is_string() && length->is_number_unsigned())
                return reader_.add(fmt::format("{}/{}", address->get_ref<const std::string&>(),
                                               length->get<std::uint64_t>()),
                                   ttl);
        }
        if (const json* range = member(value, "range");
            range && range->is_array() && range->size() == 2)
            return reader_.add(fmt::format("{}-{}", text_in((*range)[0]), text_in((*range)[1])),
                               ttl);
        if (const json* cidr = member(value, "cidr"); cidr && cidr->is_string())
            return reader_.add(cidr->get_ref<const std::string&>());
        if (const json* decided = member(value, "value"); decided && decided->is_string())
            return of_crowdsec(value, *decided);
        return unknown();
    }

    Result<> of_netctl(const json& value, const json& own) {
        const json* expires = member(value, "expires_in");
        const json* absent = member(value, "absent");
        std::uint32_t ttl = 0;
        if (expires && !expires->is_null()) {
            ttl = NETCTL_TRY(parse_ttl(text_in(*expires)));
            if (ttl == 0)
                return {}; // it is none any more
        }
        return reader_.add(text_in(own), ttl,
                           absent && absent->is_boolean() && absent->get<bool>());
    }

    Result<> of_nft(const json& inner) {
        const json* value = member(inner, "val");
        const json* left = member(inner, "expires");
        const json* timeout = left ? left : member(inner, "timeout");
        if (value == nullptr)
            return unknown();
        return element(*value, timeout ? NETCTL_TRY(parse_ttl(text_in(*timeout))) : 0);
    }

    Result<> of_crowdsec(const json& decision, const json& value) {
        const auto text = [&](const char* name) {
            const json* found = member(decision, name);
            return found && found->is_string() ? found->get<std::string>() : std::string();
        };
        if (const std::string type = text("type"); !type.empty() && type != "ban")
            return Error::usage(fmt::format("a decision of type {}, and none to ban", type));
        std::string scope = text("scope");
        std::transform(scope.begin(), scope.end(), scope.begin(),
                       [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
        if (!scope.empty() && scope != "ip" && scope != "range")
            return Error::usage(fmt::format("a decision about a {}, which no set holds", scope));
        std::uint32_t ttl = 0;
        if (const std::string duration = text("duration"); !duration.empty()) {
            const auto seconds = go_duration(duration);
            if (!seconds || *seconds > longest_ttl)
                return Error::usage(fmt::format("'{}' is no duration", duration),
                                    "such as 3h59m12.5s; a hundred years at most");
            if (*seconds == 0)
                return {}; // it is over
            ttl = *seconds;
        }
        return reader_.add(value.get_ref<const std::string&>(), ttl);
    }

    ElementReader& reader_;
    std::string source_;
    std::size_t number_ = 0;
};

/// Where in a text a byte is.
struct LinePlace {
    std::size_t number = 1;
    std::string_view line;
    std::size_t column = 0;
};

LinePlace line_of(std::string_view text, std::size_t byte) {
    byte = std::min(byte, text.size());
    const std::size_t begin = byte == 0 ? 0 : text.rfind('\n', byte - 1) + 1; // npos + 1 is 0
    const std::size_t end = std::min(text.find('\n', byte), text.size());
    return {static_cast<std::size_t>(
                std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(begin), '\n')) +
                1,
            text.substr(begin, end - begin), byte - begin};
}

} // namespace

bool ElementReader::json(std::string_view text) {
    constexpr std::string_view blanks = " \t\r\n";
    const std::size_t first = text.find_first_not_of(blanks);
    // What Go's programs print for no elements.
    if (first != std::string_view::npos &&
        text.substr(first, text.find_last_not_of(blanks) - first + 1) == "null")
        return true;
    if (first == std::string_view::npos || (text[first] != '{' && text[first] != '['))
        return false;
    JsonReader reader(*this, source_);
    const auto read = [&](std::string_view part) {
        try {
            reader.document(nlohmann::ordered_json::parse(part));
        } catch (const nlohmann::json::parse_error& error) {
            const std::size_t offset = static_cast<std::size_t>(part.data() - text.data());
            const LinePlace at = line_of(text, offset + (error.byte > 0 ? error.byte - 1 : 0));
            const std::string_view rest = at.line.substr(std::min(at.column, at.line.size()));
            bad_line(at.number, at.line, rest.substr(0, 1),
                     Error::usage("this is no JSON from here on"));
        }
    };
    // One document a line, if the first line is one and more follows.
    const std::size_t end = std::min(text.find('\n', first), text.size());
    const bool more = text.find_first_not_of(" \t\r\n", end) != std::string_view::npos;
    if (!more || !nlohmann::json::accept(text.substr(first, end - first))) {
        read(text);
        return true;
    }
    for (std::size_t begin = first; begin < text.size();) {
        const std::size_t stop = std::min(text.find('\n', begin), text.size());
        const std::string_view line = text.substr(begin, stop - begin);
        begin = stop + 1;
        if (line.find_first_not_of(" \t\r") != std::string_view::npos)
            read(line);
    }
    return true;
}

} // namespace netctl::datapath
