// SPDX-License-Identifier: GPL-2.0-only
//
// Header compression: RFC 7541's own examples, and random lists of fields, joined at each block, against nghttp2.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include <nghttp2/nghttp2.h>

#include "features/trace/http/hpack.hpp"
#include "features/trace/http/hpack_deflater.hpp"

namespace netctl::trace {
namespace {

using namespace std::string_literals;

using List = FieldList;

std::string unhex(std::string_view text) {
    std::string out, digits;
    for (const char c : text)
        if (c != ' ')
            digits += c;
    for (std::size_t i = 0; i + 1 < digits.size(); i += 2)
        out += static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16));
    return out;
}

/// `name: value` for each, a question mark for what is not known; and `!` if it was no block.
template <class Decoder> std::string told(Decoder& decoder, std::string_view block) {
    std::string text;
    const bool whole = decoder.decode(block, [&](HpackText name, HpackText value) {
        text += std::string(name.value_or("?")) + ": " + std::string(value.value_or("?")) + "\n";
    });
    return whole ? text : text + "!";
}

std::string text_of(const List& list) {
    std::string text;
    for (const auto& [name, value] : list)
        text += name + ": " + value + "\n";
    return text;
}

struct Example {
    const char* name;
    std::vector<const char*> blocks;
    std::vector<List> lists;
};

const List first_request = {
    {":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {":authority", "www.example.com"}};
const List second_request = {{":method", "GET"},
                             {":scheme", "http"},
                             {":path", "/"},
                             {":authority", "www.example.com"},
                             {"cache-control", "no-cache"}};
const List third_request = {{":method", "GET"},
                            {":scheme", "https"},
                            {":path", "/index.html"},
                            {":authority", "www.example.com"},
                            {"custom-key", "custom-value"}};

std::vector<Example> examples() {
    return {
        {"C.2.1",
         {"400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572"},
         {{{"custom-key", "custom-header"}}}},
        {"C.2.2", {"040c 2f73 616d 706c 652f 7061 7468"}, {{{":path", "/sample/path"}}}},
        {"C.2.3", {"1008 7061 7373 776f 7264 0673 6563 7265 74"}, {{{"password", "secret"}}}},
        {"C.2.4", {"82"}, {{{":method", "GET"}}}},
        {"C.3",
         {"8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", "8286 84be 5808 6e6f 2d63 6163 6865",
          "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65"},
         {first_request, second_request, third_request}},
        {"C.4",
         {"8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", "8286 84be 5886 a8eb 1064 9cbf",
          "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf"},
         {first_request, second_request, third_request}},
    };
}

TEST(Hpack, DecodesTheExamplesOfRfc7541) {
    for (const Example& example : examples()) {
        HeaderDecoder seen(true), late(false);
        for (std::size_t i = 0; i < example.blocks.size(); ++i) {
            const std::string block = unhex(example.blocks[i]);
            EXPECT_EQ(told(seen, block), text_of(example.lists[i])) << example.name;
            EXPECT_EQ(told(late, block), text_of(example.lists[i])) << example.name;
        }
        EXPECT_TRUE(seen.whole());
        EXPECT_FALSE(late.whole());
    }
}

TEST(Hpack, WhatStoodInTheTableBeforeIsUnknown) {
    const auto blocks = examples()[5].blocks; // C.4
    LateHpack late;
    EXPECT_EQ(told(late, unhex(blocks[1])),
              ":method: GET\n:scheme: http\n:path: /\n?: ?\ncache-control: no-cache\n");
    // The next one counts from the newest entry, which was seen, and goes behind it.
    EXPECT_EQ(told(late, unhex(blocks[2])),
              ":method: GET\n:scheme: https\n:path: /index.html\n?: ?\ncustom-key: custom-value\n");
    // 62 and 63 were seen coming, 64 was not; a name from there is as unknown as a value.
    EXPECT_EQ(told(late, unhex("be bf c0 7f01 01 78 be")),
              "custom-key: custom-value\ncache-control: no-cache\n?: ?\n?: x\n?: x\n");
}

TEST(Hpack, KnowsTheStaticTable) {
    nghttp2_hd_inflater* inflater = nullptr;
    ASSERT_EQ(nghttp2_hd_inflate_new(&inflater), 0);
    for (std::size_t index = 1; index <= 61; ++index) {
        const nghttp2_nv* entry = nghttp2_hd_inflate_get_table_entry(inflater, index);
        LateHpack late;
        EXPECT_EQ(told(late, std::string(1, static_cast<char>(0x80 | index))),
                  std::string(reinterpret_cast<const char*>(entry->name), entry->namelen) + ": " +
                      std::string(reinterpret_cast<const char*>(entry->value), entry->valuelen) +
                      "\n");
    }
    nghttp2_hd_inflate_del(inflater);
}

TEST(Hpack, UndoesTheCodeOfEachByte) {
    for (int byte = 0; byte < 256; ++byte) {
        // Surrounded by short codes, so that the whole is coded.
        const List list = {{"x", std::string(100, '0') + static_cast<char>(byte) + "ae"}};
        Deflater deflater;
        LateHpack late;
        EXPECT_EQ(told(late, deflater.block(list, false)), text_of(list)) << byte;
    }
}

TEST(Hpack, WhatIsNoBlockIsRefused) {
    for (const char* wrong : {
             "80",                      // index 0
             "40",                      // a literal that is cut
             "4001",                    // likewise
             "400161",                  // without a value
             "40016105 61",             // with less of it than is said
             "ff ff ff ff ff ff ff 01", // an absurd index
             "00 81 ff 00",             // a rest that is a byte of ones
             "00 81 18 00",             // a rest that is not all ones
             "00 84 ff ff ff ff 00",    // the end of the string's code
         }) {
        HeaderDecoder seen(true);
        LateHpack late;
        EXPECT_TRUE(told(seen, unhex(wrong)).ends_with("!")) << wrong;
        EXPECT_TRUE(told(late, unhex(wrong)).ends_with("!")) << wrong;
        EXPECT_FALSE(seen.whole());
    }
}

List random_list(std::mt19937_64& random) {
    static const std::vector<std::string> names = {
        ":path",  ":method", ":status",          "x-a",        "x-b",
        "cookie", "accept",  "x-long-name-here", "user-agent", "x-c"};
    List list;
    for (std::size_t n = random() % 8; n > 0; --n) {
        std::string value;
        const std::size_t kind = random() % 12;
        if (kind == 0)
            value.assign(random() % 3000, 'v'); // makes others go, or is too large for the table
        else if (kind < 4)
            for (std::size_t i = random() % 20; i > 0; --i)
                value += static_cast<char>(random() % 256);
        else
            value = "value" + std::to_string(random() % 6);
        list.emplace_back(names[random() % names.size()], value);
    }
    return list;
}

TEST(Hpack, JoinedAnywhereItIsNeverWrong) {
    std::mt19937_64 random(20261130);
    std::size_t known = 0, unknown = 0;
    for (int round = 0; round < 150; ++round) {
        const std::size_t table = std::vector<std::size_t>{4096, 4096, 300, 0, 60000}[random() % 5];
        Deflater deflater(table);
        std::vector<std::string> blocks;
        std::vector<List> lists;
        for (int i = 0; i < 12; ++i) {
            if (random() % 8 == 0)
                deflater.resize(random() % 2 ? table / 2 : table);
            lists.push_back(random_list(random));
            blocks.push_back(deflater.block(lists.back()));
        }
        HeaderDecoder seen(true);
        for (std::size_t i = 0; i < blocks.size(); ++i)
            ASSERT_EQ(told(seen, blocks[i]), text_of(lists[i]));
        ASSERT_TRUE(seen.whole());
        for (std::size_t join = 0; join < blocks.size(); ++join) {
            LateHpack late;
            for (std::size_t i = join; i < blocks.size(); ++i) {
                std::size_t at = 0;
                ASSERT_TRUE(late.decode(blocks[i], [&](HpackText name, HpackText value) {
                    ASSERT_LT(at, lists[i].size());
                    ASSERT_TRUE(!name || *name == lists[i][at].first);
                    ASSERT_TRUE(!value || *value == lists[i][at].second);
                    (name && value ? known : unknown) += 1;
                    // From the beginning on there is nothing that it does not know.
                    ASSERT_TRUE(join > 0 || (name && value));
                    ++at;
                }));
                ASSERT_EQ(at, lists[i].size());
            }
        }
    }
    EXPECT_GT(known, unknown * 4);
    EXPECT_GT(unknown, 100u);
}

TEST(Hpack, AfterALostBlockNothingIsWrong) {
    std::mt19937_64 random(4711);
    for (int round = 0; round < 300; ++round) {
        Deflater deflater;
        HeaderDecoder decoder(true);
        for (int i = 0; i < 10; ++i) {
            const List list = random_list(random);
            const std::string block = deflater.block(list);
            if (random() % 4 == 0) {
                decoder.lose();
                continue;
            }
            std::size_t at = 0;
            ASSERT_TRUE(decoder.decode(block, [&](HpackText name, HpackText value) {
                ASSERT_LT(at, list.size());
                ASSERT_TRUE(!name || *name == list[at].first);
                ASSERT_TRUE(!value || *value == list[at].second);
                ++at;
            }));
            ASSERT_EQ(at, list.size());
        }
    }
}

TEST(Hpack, ItsTableIsBounded) {
    LateHpack late;
    HeaderDecoder seen(true);
    for (int i = 0; i < 3000; ++i) {
        const std::string value = std::to_string(i) + std::string(i % 7 == 0 ? 40000 : 100, 'x');
        std::string block = "\x40\1n"s;
        block += '\x7f';
        for (std::size_t rest = value.size() - 127;; rest >>= 7) {
            block += static_cast<char>((rest & 0x7f) | (rest > 127 ? 0x80 : 0));
            if (rest <= 127)
                break;
        }
        if (value.size() < 127)
            block = "\x40\1n"s + static_cast<char>(value.size()) + value;
        else
            block += value;
        ASSERT_EQ(told(late, block), "n: " + value + "\n");
        ASSERT_EQ(told(seen, block), "n: " + value + "\n");
        ASSERT_LE(late.held(), LateHpack::table_limit);
        ASSERT_LE(seen.held(), LateHpack::table_limit);
    }
}

} // namespace
} // namespace netctl::trace
