// SPDX-License-Identifier: GPL-2.0-only
#include "fleet/wire.hpp"

namespace netctl::fleet {

namespace {

constexpr unsigned varint_type = 0, fixed64_type = 1, block_type = 2, fixed32_type = 5;

std::optional<std::uint64_t> take_varint(std::string_view& text) {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && !text.empty(); shift += 7) {
        const auto byte = static_cast<unsigned char>(text.front());
        text.remove_prefix(1);
        value |= std::uint64_t{byte & 0x7fU} << shift;
        if ((byte & 0x80) == 0)
            return value;
    }
    return {};
}

} // namespace

void WireWriter::varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7)
        text_ += static_cast<char>(value | 0x80);
    text_ += static_cast<char>(value);
}

void WireWriter::block(unsigned field, std::string_view value) {
    varint(field << 3 | block_type);
    varint(value.size());
    text_ += value;
}

WireWriter& WireWriter::number(unsigned field, std::uint64_t value) {
    if (value != 0) {
        varint(field << 3 | varint_type);
        varint(value);
    }
    return *this;
}

WireWriter& WireWriter::zero(unsigned field) {
    varint(field << 3 | varint_type);
    varint(0);
    return *this;
}

WireWriter& WireWriter::bytes(unsigned field, std::string_view value) {
    if (!value.empty())
        block(field, value);
    return *this;
}

WireWriter& WireWriter::message(unsigned field, const WireWriter& value) {
    block(field, value.text());
    return *this;
}

std::uint64_t WireMessage::number(unsigned field) const {
    const auto found = numbers.find(field);
    return found != numbers.end() ? found->second : 0;
}

std::string_view WireMessage::block(unsigned field) const {
    const auto found = blocks.find(field);
    return found != blocks.end() ? found->second.back() : std::string_view();
}

const std::vector<std::string_view>& WireMessage::all(unsigned field) const {
    static const std::vector<std::string_view> none;
    const auto found = blocks.find(field);
    return found != blocks.end() ? found->second : none;
}

std::optional<WireMessage> read_wire(std::string_view text) {
    WireMessage message;
    while (!text.empty()) {
        const auto tag = take_varint(text);
        if (!tag || *tag >> 3 == 0 || *tag >> 3 > 0x1fffffff)
            return {};
        const auto field = static_cast<unsigned>(*tag >> 3);
        const unsigned type = *tag & 7;
        if (type == varint_type) {
            const auto value = take_varint(text);
            if (!value)
                return {};
            message.numbers[field] = *value;
            continue;
        }
        std::uint64_t size = type == fixed64_type ? 8 : 4;
        if (type == block_type) {
            const auto given = take_varint(text);
            if (!given)
                return {};
            size = *given;
        } else if (type != fixed64_type && type != fixed32_type) {
            return {};
        }
        if (size > text.size())
            return {};
        if (type == block_type)
            message.blocks[field].push_back(text.substr(0, size));
        text.remove_prefix(size);
    }
    return message;
}

} // namespace netctl::fleet
