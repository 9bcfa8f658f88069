// SPDX-License-Identifier: GPL-2.0-only
#include "fleet/bytes.hpp"

#include <algorithm>
#include <array>

#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <zstd.h>

namespace netctl::fleet {

namespace {

const unsigned char* octets(std::string_view bytes) {
    return reinterpret_cast<const unsigned char*>(bytes.data());
}

} // namespace

std::string sha256(std::string_view bytes) {
    std::array<unsigned char, SHA256_DIGEST_LENGTH> digest{};
    SHA256(octets(bytes), bytes.size(), digest.data());
    return {digest.begin(), digest.end()};
}

std::string sha256_text(std::string_view bytes) {
    std::string text;
    for (const char c : sha256(bytes))
        text += fmt::format("{:02x}", static_cast<unsigned char>(c));
    return text;
}

bool is_sha256_text(std::string_view text) {
    return text.size() == 64 &&
           text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

std::string base64(std::string_view bytes) {
    std::string text((bytes.size() + 2) / 3 * 4 + 1, '\0'); // and the zero that it writes behind
    const int size = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()), octets(bytes),
                                     static_cast<int>(bytes.size()));
    text.resize(static_cast<std::size_t>(size));
    return text;
}

std::optional<std::string> from_base64(std::string_view text) {
    if (text.empty() || text.size() % 4 != 0 || text.size() > 4096)
        return {};
    std::string bytes(text.size() / 4 * 3, '\0');
    if (EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()), octets(text),
                        static_cast<int>(text.size())) < 0)
        return {};
    const std::size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
    bytes.resize(bytes.size() - padding);
    if (base64(bytes) != text) // blanks around, or bits that stand for nothing
        return {};
    return bytes;
}

Result<std::string> compress(std::string_view bytes) {
    std::string packed(ZSTD_compressBound(bytes.size()), '\0');
    const std::size_t size =
        ZSTD_compress(packed.data(), packed.size(), bytes.data(), bytes.size(), 9);
    if (ZSTD_isError(size) != 0)
        return Error::failed(Text::format("cannot compress: {}", ZSTD_getErrorName(size)));
    packed.resize(size);
    return packed;
}

Result<std::string> unpack(std::string stored, std::size_t size) {
    constexpr std::string_view magic("\x28\xb5\x2f\xfd", 4);
    if (stored.starts_with(magic)) {
        // One byte more than it may hold: no bomb goes further than that.
        std::string text(size + 1, '\0');
        const std::size_t got =
            ZSTD_decompress(text.data(), text.size(), stored.data(), stored.size());
        if (ZSTD_isError(got) != 0)
            return Error::failed(Text::format("it cannot be unpacked into its {} bytes: {}", size,
                                              ZSTD_getErrorName(got)));
        text.resize(got);
        stored = std::move(text);
    }
    if (stored.size() != size)
        return Error::failed(
            Text::format("it has {} bytes where {} are signed", stored.size(), size));
    return stored;
}

} // namespace netctl::fleet
