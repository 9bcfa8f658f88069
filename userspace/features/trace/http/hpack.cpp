// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/http/hpack.hpp"

#include <array>
#include <utility>

#include <nghttp2/nghttp2.h>

namespace netctl::trace {

namespace {

struct StaticEntry {
    std::string_view name;
    std::string_view value;
};

/// RFC 7541, appendix A.
constexpr std::array<StaticEntry, 61> static_table = {{
    {":authority", ""},
    {":method", "GET"},
    {":method", "POST"},
    {":path", "/"},
    {":path", "/index.html"},
    {":scheme", "http"},
    {":scheme", "https"},
    {":status", "200"},
    {":status", "204"},
    {":status", "206"},
    {":status", "304"},
    {":status", "400"},
    {":status", "404"},
    {":status", "500"},
    {"accept-charset", ""},
    {"accept-encoding", "gzip, deflate"},
    {"accept-language", ""},
    {"accept-ranges", ""},
    {"accept", ""},
    {"access-control-allow-origin", ""},
    {"age", ""},
    {"allow", ""},
    {"authorization", ""},
    {"cache-control", ""},
    {"content-disposition", ""},
    {"content-encoding", ""},
    {"content-language", ""},
    {"content-length", ""},
    {"content-location", ""},
    {"content-range", ""},
    {"content-type", ""},
    {"cookie", ""},
    {"date", ""},
    {"etag", ""},
    {"expect", ""},
    {"expires", ""},
    {"from", ""},
    {"host", ""},
    {"if-match", ""},
    {"if-modified-since", ""},
    {"if-none-match", ""},
    {"if-range", ""},
    {"if-unmodified-since", ""},
    {"last-modified", ""},
    {"link", ""},
    {"location", ""},
    {"max-forwards", ""},
    {"proxy-authenticate", ""},
    {"proxy-authorization", ""},
    {"range", ""},
    {"referer", ""},
    {"refresh", ""},
    {"retry-after", ""},
    {"server", ""},
    {"set-cookie", ""},
    {"strict-transport-security", ""},
    {"transfer-encoding", ""},
    {"user-agent", ""},
    {"vary", ""},
    {"via", ""},
    {"www-authenticate", ""},
}};

/// The lengths of the codes of RFC 7541, appendix B, by byte; the last is the end of the string's. Codes of the
/// same length are in the order of their bytes, and longer ones follow shorter ones, so that lengths are all.
constexpr std::array<std::uint8_t, 257> code_lengths = {
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6,  10, 10, 12, 13, 6,  8,  11, 10, 10, 8,  11, 8,  6,  6,  6,
    5,  5,  5,  6,  6,  6,  6,  6,  6,  6,  7,  8,  15, 6,  12, 10, 13, 6,  7,  7,  7,  7,  7,  7,
    7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  8,  7,  8,  13, 19, 13, 14, 6,
    15, 5,  6,  5,  6,  5,  6,  6,  6,  5,  7,  7,  6,  6,  6,  5,  6,  7,  6,  5,  5,  6,  7,  7,
    7,  7,  7,  15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
};
constexpr unsigned longest_code = 30;
constexpr unsigned end_of_string = 256;

struct Codes {
    std::array<std::uint32_t, longest_code + 1> first{}; ///< code of each length
    std::array<std::uint16_t, longest_code + 1> count{};
    std::array<std::uint16_t, longest_code + 1> begin{}; ///< of each length in `symbols`
    std::array<std::uint16_t, 257> symbols{};
};

constexpr Codes make_codes() {
    Codes codes;
    for (const std::uint8_t length : code_lengths)
        ++codes.count[length];
    std::uint32_t code = 0;
    std::uint16_t at = 0;
    for (unsigned length = 1; length <= longest_code; ++length) {
        code <<= 1;
        codes.first[length] = code;
        codes.begin[length] = at;
        for (unsigned symbol = 0; symbol < code_lengths.size(); ++symbol)
            if (code_lengths[symbol] == length)
                codes.symbols[at++] = static_cast<std::uint16_t>(symbol);
        code += codes.count[length];
    }
    return codes;
}
constexpr Codes codes = make_codes();

/// RFC 7541 5.2: the rest behind the last code is shorter than a byte, and all ones.
bool decode_huffman(std::string_view coded, std::string& out) {
    std::uint32_t code = 0;
    unsigned length = 0;
    for (const char c : coded) {
        for (int bit = 7; bit >= 0; --bit) {
            code = code << 1 | (static_cast<unsigned char>(c) >> bit & 1);
            if (++length > longest_code)
                return false;
            const std::uint32_t place = code - codes.first[length];
            if (code < codes.first[length] || place >= codes.count[length])
                continue;
            const unsigned symbol = codes.symbols[codes.begin[length] + place];
            if (symbol == end_of_string)
                return false;
            out += static_cast<char>(symbol);
            code = 0;
            length = 0;
        }
    }
    return length < 8 && code == (1u << length) - 1;
}

/// RFC 7541 5.1: an integer whose first byte has `bits` of it. False if it is cut or absurd.
bool take_integer(std::string_view& text, unsigned bits, std::uint64_t& value) {
    const std::uint64_t most = (1u << bits) - 1;
    value = static_cast<unsigned char>(text[0]) & most;
    text.remove_prefix(1);
    if (value < most)
        return true;
    for (unsigned shift = 0; shift < 35; shift += 7) {
        if (text.empty())
            return false;
        const auto byte = static_cast<unsigned char>(text[0]);
        text.remove_prefix(1);
        value += static_cast<std::uint64_t>(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0)
            return true;
    }
    return false;
}

/// RFC 7541 5.2. `store` is where a coded string is decoded to.
bool take_string(std::string_view& text, std::string& store, std::string_view& string) {
    if (text.empty())
        return false;
    const bool huffman = (static_cast<unsigned char>(text[0]) & 0x80) != 0;
    std::uint64_t length = 0;
    if (!take_integer(text, 7, length) || length > text.size())
        return false;
    string = text.substr(0, length);
    text.remove_prefix(length);
    if (!huffman)
        return true;
    store.clear();
    if (!decode_huffman(string, store))
        return false;
    string = store;
    return true;
}

} // namespace

bool LateHpack::look_up(std::uint64_t index, HpackText& name, HpackText* value) const {
    if (index == 0)
        return false;
    if (index <= static_table.size()) {
        name = static_table[index - 1].name;
        if (value)
            *value = static_table[index - 1].value;
        return true;
    }
    index -= static_table.size() + 1;
    name.reset();
    if (value)
        value->reset();
    if (index >= table_.size())
        return true;
    if (table_[index].name)
        name = *table_[index].name;
    if (value && table_[index].value)
        *value = *table_[index].value;
    return true;
}

void LateHpack::insert(HpackText name, std::string_view value) {
    Entry entry;
    // More than any table of a sensible size holds: it is not kept, but it has its place.
    if (value.size() + (name ? name->size() : 0) <= table_limit / 4) {
        if (name)
            entry.name.emplace(*name);
        entry.value.emplace(value);
    }
    size_ += entry.size();
    table_.push_front(std::move(entry));
    while (size_ > table_limit) {
        size_ -= table_.back().size();
        table_.pop_back();
    }
}

bool LateHpack::decode_fields(std::string_view block, const HpackField& field) {
    std::string name_store, value_store;
    while (!block.empty()) {
        const auto first = static_cast<unsigned char>(block[0]);
        std::uint64_t index = 0;
        HpackText name, value;
        if ((first & 0x80) != 0) { // 6.1
            if (!take_integer(block, 7, index) || !look_up(index, name, &value))
                return false;
            field(name, value);
            continue;
        }
        if ((first & 0xe0) == 0x20) { // 6.3
            if (!take_integer(block, 5, index))
                return false;
            continue;
        }
        const bool indexed = (first & 0xc0) == 0x40; // 6.2
        if (!take_integer(block, indexed ? 6 : 4, index))
            return false;
        std::string_view string;
        if (index == 0) {
            if (!take_string(block, name_store, string))
                return false;
            name = string;
        } else if (!look_up(index, name, nullptr)) {
            return false;
        }
        if (!take_string(block, value_store, string))
            return false;
        value = string;
        field(name, value);
        if (indexed) {
            // The name may be of an entry that goes to make room.
            if (index > static_table.size() && name)
                name = name_store.assign(*name);
            insert(name, string);
        }
    }
    return true;
}

bool LateHpack::decode(std::string_view block, const HpackField& field) {
    if (decode_fields(block, field))
        return true;
    forget();
    return false;
}

void LateHpack::forget() {
    table_.clear();
    size_ = 0;
}

void HeaderDecoder::Free::operator()(nghttp2_hd_inflater* inflater) const {
    nghttp2_hd_inflate_del(inflater);
}

HeaderDecoder::HeaderDecoder(bool seen) {
    nghttp2_hd_inflater* inflater = nullptr;
    if (!seen || nghttp2_hd_inflate_new(&inflater) != 0)
        return;
    inflater_.reset(inflater);
    // What the other side allows for is not looked up: a sender says how much of it it takes. More than this
    // is an error, and the table is unknown from there on.
    nghttp2_hd_inflate_change_table_size(inflater, LateHpack::table_limit);
}

HeaderDecoder::~HeaderDecoder() = default;

bool HeaderDecoder::decode(std::string_view block, const HpackField& field) {
    if (!inflater_)
        return late_.decode(block, field);
    const auto* at = reinterpret_cast<const std::uint8_t*>(block.data());
    std::size_t left = block.size();
    for (;;) {
        nghttp2_nv one{};
        int flags = 0;
        const auto used = nghttp2_hd_inflate_hd2(inflater_.get(), &one, &flags, at, left, 1);
        if (used < 0) {
            lose();
            return false;
        }
        at += used;
        left -= static_cast<std::size_t>(used);
        if ((flags & NGHTTP2_HD_INFLATE_EMIT) != 0)
            field(std::string_view(reinterpret_cast<const char*>(one.name), one.namelen),
                  std::string_view(reinterpret_cast<const char*>(one.value), one.valuelen));
        if ((flags & NGHTTP2_HD_INFLATE_FINAL) != 0) {
            nghttp2_hd_inflate_end_headers(inflater_.get());
            return true;
        }
        if ((flags & NGHTTP2_HD_INFLATE_EMIT) == 0 && left == 0) {
            lose();
            return false;
        }
    }
}

void HeaderDecoder::lose() {
    inflater_.reset();
    late_.forget();
}

std::size_t HeaderDecoder::held() const {
    constexpr std::size_t inflater_cost = 2048; // its ring and what it decodes into, roughly
    return late_.held() +
           (inflater_ ? inflater_cost + nghttp2_hd_inflate_get_dynamic_table_size(inflater_.get())
                      : 0);
}

} // namespace netctl::trace
