// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/http/content_coding.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <brotli/decode.h>
#include <fmt/format.h>
#include <zlib.h>
#include <zstd.h>

namespace netctl::trace {

namespace {

using Buffer = std::array<char, 64 * 1024>;

/// Bytes that came out of a decoder, up to the limit. False if that is reached.
bool take(Decoded& out, const Buffer& buffer, std::size_t size, std::size_t limit) {
    out.bytes.append(buffer.data(), std::min(size, limit - out.bytes.size()));
    return out.bytes.size() < limit;
}

/// zlib's numbers: 32 more than the size of the window finds out whether it is gzip or zlib, and a negative
/// one says that there is no header. Empty if the bytes are none of these.
std::optional<Decoded> inflate_as(int window, std::string_view body, std::size_t limit) {
    z_stream stream{};
    if (inflateInit2(&stream, window) != Z_OK)
        return std::nullopt;
    const std::unique_ptr<z_stream, int (*)(z_stream*)> end(&stream, inflateEnd);
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(body.data()));
    stream.avail_in = static_cast<uInt>(body.size());
    Decoded out;
    Buffer buffer;
    for (;;) {
        stream.next_out = reinterpret_cast<Bytef*>(buffer.data());
        stream.avail_out = buffer.size();
        const int status = inflate(&stream, Z_NO_FLUSH);
        if (!take(out, buffer, buffer.size() - stream.avail_out, limit))
            return out;
        if (status == Z_STREAM_END) {
            out.whole = true;
            // Several gzip files behind one another are one (RFC 1952, 2.2); what is none is nobody's.
            if (stream.avail_in < 2 || stream.next_in[0] != 0x1f || stream.next_in[1] != 0x8b)
                return out;
            out.whole = false;
            inflateReset(&stream);
        } else if (status == Z_BUF_ERROR ||
                   (status == Z_OK && stream.avail_in == 0 && stream.avail_out != 0)) {
            return out; // it was cut
        } else if (status != Z_OK) {
            return std::nullopt;
        }
    }
}

std::optional<Decoded> decode_gzip(std::string_view body, std::size_t limit) {
    return inflate_as(MAX_WBITS + 32, body, limit);
}

std::optional<Decoded> decode_deflate(std::string_view body, std::size_t limit) {
    auto decoded = inflate_as(MAX_WBITS, body, limit);
    return decoded ? decoded : inflate_as(-MAX_WBITS, body, limit);
}

std::optional<Decoded> decode_brotli(std::string_view body, std::size_t limit) {
    const std::unique_ptr<BrotliDecoderState, void (*)(BrotliDecoderState*)> state(
        BrotliDecoderCreateInstance(nullptr, nullptr, nullptr), BrotliDecoderDestroyInstance);
    if (!state)
        return std::nullopt;
    const auto* in = reinterpret_cast<const std::uint8_t*>(body.data());
    std::size_t left = body.size();
    Decoded out;
    Buffer buffer;
    for (;;) {
        auto* at = reinterpret_cast<std::uint8_t*>(buffer.data());
        std::size_t room = buffer.size();
        const auto status =
            BrotliDecoderDecompressStream(state.get(), &left, &in, &room, &at, nullptr);
        if (status == BROTLI_DECODER_RESULT_ERROR)
            return std::nullopt;
        if (!take(out, buffer, buffer.size() - room, limit))
            return out;
        out.whole = status == BROTLI_DECODER_RESULT_SUCCESS;
        if (status != BROTLI_DECODER_RESULT_NEEDS_MORE_OUTPUT)
            return out;
    }
}

std::optional<Decoded> decode_zstd(std::string_view body, std::size_t limit) {
    const std::unique_ptr<ZSTD_DStream, std::size_t (*)(ZSTD_DStream*)> stream(ZSTD_createDStream(),
                                                                               ZSTD_freeDStream);
    // RFC 9659: what is sent as a content coding needs no window above 8 MiB.
    if (!stream || ZSTD_isError(ZSTD_DCtx_setParameter(stream.get(), ZSTD_d_windowLogMax, 23)))
        return std::nullopt;
    ZSTD_inBuffer in{body.data(), body.size(), 0};
    Decoded out;
    Buffer buffer;
    for (;;) {
        ZSTD_outBuffer room{buffer.data(), buffer.size(), 0};
        const std::size_t status = ZSTD_decompressStream(stream.get(), &room, &in);
        if (ZSTD_isError(status))
            return std::nullopt;
        if (!take(out, buffer, room.pos, limit))
            return out;
        out.whole = status == 0;
        if (in.pos == in.size && room.pos < room.size)
            return out;
    }
}

std::vector<std::string> list_of(std::string_view codings) {
    std::vector<std::string> list(1);
    for (const char c : codings) {
        if (c == ',')
            list.emplace_back();
        else if (c != ' ' && c != '\t')
            list.back() += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
    std::erase_if(list, [](const std::string& one) { return one.empty() || one == "identity"; });
    return list;
}

} // namespace

Result<Decoded> decode_content(std::string_view codings, std::string_view body, std::size_t limit) {
    struct Coding {
        const char* name;
        std::optional<Decoded> (*decode)(std::string_view, std::size_t);
    };
    static constexpr Coding known[] = {{"gzip", decode_gzip},
                                       {"x-gzip", decode_gzip},
                                       {"deflate", decode_deflate},
                                       {"br", decode_brotli},
                                       {"zstd", decode_zstd}};
    std::vector<std::string> list = list_of(codings);
    // Whoever is honest applies one, seldom two.
    constexpr std::size_t most = 4;
    if (list.size() > most)
        return Error::failed(fmt::format("more than {} content codings", most));
    Decoded decoded{std::string(body), true};
    for (; !list.empty(); list.pop_back()) {
        const auto* coding =
            std::find_if(std::begin(known), std::end(known),
                         [&](const Coding& one) { return list.back() == one.name; });
        if (coding == std::end(known))
            return Error::failed(fmt::format("content coding '{}' is not known", list.back()));
        auto next = coding->decode(decoded.bytes, limit);
        if (!next)
            return Error::failed(fmt::format("this is not '{}'", list.back()));
        next->whole &= decoded.whole;
        decoded = std::move(*next);
    }
    return decoded;
}

void decode_bodies(Transaction& transaction) {
    for (Message* message : {&transaction.request, &transaction.response}) {
        if (message->content_encoding.empty() || message->body.empty())
            continue;
        auto decoded = decode_content(message->content_encoding, message->body);
        if (!decoded)
            continue;
        message->decoded = std::move(decoded->bytes);
        message->decoded_whole = decoded->whole;
    }
}

} // namespace netctl::trace
