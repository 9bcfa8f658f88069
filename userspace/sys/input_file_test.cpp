// SPDX-License-Identifier: GPL-2.0-only
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <unistd.h>

#include <zlib.h>
#include <zstd.h>

#include "sys/input_file.hpp"

namespace netctl::sys {
namespace {

std::string gzip(const std::string& text) {
    z_stream stream{};
    EXPECT_EQ(deflateInit2(&stream, 6, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    std::string out(deflateBound(&stream, text.size()), '\0');
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
    stream.avail_in = static_cast<uInt>(text.size());
    stream.next_out = reinterpret_cast<Bytef*>(out.data());
    stream.avail_out = static_cast<uInt>(out.size());
    EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
    out.resize(stream.total_out);
    deflateEnd(&stream);
    return out;
}

std::string zstd(const std::string& text) {
    std::string out(ZSTD_compressBound(text.size()), '\0');
    out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
    return out;
}

struct Read {
    std::string bytes;
    std::string trouble;
};

Read read_all(const std::string& bytes) {
    char path[] = "/tmp/netctl-input-XXXXXX";
    close(mkstemp(path));
    std::ofstream(path, std::ios::binary) << bytes;
    Read read;
    const auto stream = open_input(path, read.trouble);
    EXPECT_TRUE(stream);
    char buffer[3000];
    while (const std::size_t size = std::fread(buffer, 1, sizeof buffer, *stream))
        read.bytes.append(buffer, size);
    EXPECT_EQ(std::ferror(*stream) != 0, !read.trouble.empty());
    std::fclose(*stream);
    unlink(path);
    return read;
}

TEST(InputFile, IsReadAsWhatItHolds) {
    std::string text;
    for (unsigned i = 0; text.size() < 500'000; ++i)
        text += std::to_string(i * 2654435761u);
    for (const std::string& one : {std::string(), std::string("x"), std::string("\x1f"),
                                   std::string("\x28\xb5\x2f"), text}) {
        EXPECT_EQ(read_all(one).bytes, one);
        EXPECT_EQ(read_all(gzip(one)).bytes, one);
        EXPECT_EQ(read_all(zstd(one)).bytes, one);
        EXPECT_EQ(read_all(gzip(one) + gzip("more")).bytes, one + "more");
        EXPECT_EQ(read_all(zstd(one) + zstd("more")).bytes, one + "more");
    }
}

TEST(InputFile, WhatIsCutIsReadUpToThere) {
    const std::string text(300'000, 'a');
    for (const auto& [bytes, name] : {std::pair{gzip(text), "gzip"}, {zstd(text), "zstd"}}) {
        for (const std::size_t kept : {bytes.size() - 1, bytes.size() / 2}) {
            const Read read = read_all(bytes.substr(0, kept));
            EXPECT_TRUE(text.starts_with(read.bytes)) << name;
            EXPECT_EQ(read.trouble, std::string("its ") + name + " data end too early") << kept;
        }
        std::string damaged = bytes;
        damaged[6] = static_cast<char>(damaged[6] ^ 0xff);
        damaged[bytes.size() / 2] = static_cast<char>(damaged[bytes.size() / 2] ^ 0xff);
        EXPECT_FALSE(read_all(damaged).trouble.empty()) << name;
    }
}

TEST(InputFile, WhatCannotBeReadIsTold) {
    std::string trouble;
    const auto missing = open_input("/no/such/file", trouble);
    ASSERT_FALSE(missing);
    EXPECT_NE(missing.error().what.string().find("/no/such/file"), std::string::npos);
    const auto folder = open_input("/tmp", trouble);
    ASSERT_TRUE(folder);
    EXPECT_EQ(std::fgetc(*folder), EOF);
    EXPECT_EQ(trouble, "Is a directory");
    std::fclose(*folder);
}

} // namespace
} // namespace netctl::sys
