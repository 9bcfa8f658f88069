// SPDX-License-Identifier: GPL-2.0-only
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "fleet/bytes.hpp"
#include "fleet/head.hpp"
#include "fleet/keys.hpp"
#include "testing/must.hpp"

namespace netctl::fleet {

namespace {

using testing::must;

Head some_head() {
    return {"prod", 7, sha256_text("body"), 4, 1'764'500'000, 0, false};
}

std::string signed_by(const std::vector<SecretKey>& keys, const Head& head) {
    std::string file;
    for (const SecretKey& key : keys)
        file += must(sign(key, head_message(head)));
    return file + head_message(head);
}

PublicKey public_of(const SecretKey& key, const std::string& name = "a.pub") {
    return must(parse_public_key(name, public_text(key)));
}

// Made once by `signify-openbsd -G -n` and `signify-openbsd -S -e`: what it writes is read, and verified.
constexpr const char* signify_public = "untrusted comment: signify public key\n"
                                       "RWQYy31cT/uOyITW762/CYg6n+P0U+4e6YcDhpC0mTd1lflWxRWbXInS\n";
constexpr const char* signify_secret =
    "untrusted comment: signify secret key\n"
    "RWRCSwAAAABKnUZeIws/9OiL+OryREOxdbhlDRXJ0AYYy31cT/"
    "uOyM11rIjzu+KGAehR7uAjFiHNCuNz83d43AkV+hpUPZEahNbvrb8JiDqf4/RT7h7phwOGkLSZN3WV+VbFFZtcidI=\n";
constexpr const char* signify_signed =
    "untrusted comment: verify with k.pub\n"
    "RWQYy31cT/uOyCcFJhK6bh4c9P91L6XJ1S46nhlINpy7otXZbXowmZUPBT6U/"
    "+3EeKziYl3gl2PnNSf0vagaKmqRInx+t09l6wk=\n"
    "a message\n";

TEST(FleetKeys, WhatSignifyWritesIsVerifiedAndSignedAlike) {
    const PublicKey key = must(parse_public_key("signify.pub", signify_public));
    const Envelope envelope = must(parse_envelope(signify_signed));
    EXPECT_EQ(envelope.message, "a message\n");
    EXPECT_EQ(signers(envelope, {key}), std::vector<std::string>{"signify.pub"});

    const std::string path = ::testing::TempDir() + "fleet-signify.sec";
    std::ofstream(path) << signify_secret;
    ASSERT_EQ(chmod(path.c_str(), 0600), 0);
    const SecretKey secret = must(read_secret_key(path));
    // Ed25519 has one signature of a message and key: the same bytes as signify's.
    const Envelope own = must(parse_envelope(must(sign(secret, "a message\n")) + "a message\n"));
    EXPECT_EQ(own.signatures, envelope.signatures);
    std::filesystem::remove(path);
}

TEST(FleetKeys, SecretKeysThatOthersCanReadAreRefused) {
    const std::string path = ::testing::TempDir() + "fleet-open.sec";
    std::ofstream(path) << secret_text(must(make_key()));
    ASSERT_EQ(chmod(path.c_str(), 0640), 0);
    const auto refused = read_secret_key(path);
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().what.find("can be read by others"), std::string::npos);
    ASSERT_EQ(chmod(path.c_str(), 0600), 0);
    EXPECT_TRUE(bool(read_secret_key(path)));
    std::filesystem::remove(path);
}

TEST(FleetKeys, APublicKeyThatOthersCanWriteIsRefused) {
    const std::string folder = ::testing::TempDir() + "fleet-keys";
    std::filesystem::create_directories(folder);
    std::ofstream(folder + "/a.pub") << public_text(must(make_key()));
    ASSERT_EQ(chmod(folder.c_str(), 0777), 0);
    EXPECT_FALSE(read_public_keys(folder));
    ASSERT_EQ(chmod(folder.c_str(), 0755), 0);
    EXPECT_EQ(must(read_public_keys(folder)).size(), 1U);
    ASSERT_EQ(chmod((folder + "/a.pub").c_str(), 0666), 0);
    EXPECT_FALSE(read_public_keys(folder));
    std::filesystem::remove_all(folder);
}

TEST(FleetHead, IsReadBackAsItWas) {
    const SecretKey key = must(make_key());
    Head head = some_head();
    EXPECT_EQ(must(open_head(signed_by({key}, head), {public_of(key)}, 1)), head);
    head.not_after = head.published + 60;
    head.at_once = true;
    EXPECT_EQ(must(open_head(signed_by({key}, head), {public_of(key)}, 1)), head);
}

TEST(FleetHead, AChangeOfAnyByteIsRefused) {
    const SecretKey key = must(make_key());
    const std::string file = signed_by({key}, some_head());
    // The first line is a comment, which nothing covers, and may say what it likes.
    for (std::size_t i = file.find('\n') + 1; i < file.size(); i++) {
        std::string forged = file;
        forged[i] = static_cast<char>(forged[i] ^ 1);
        EXPECT_FALSE(open_head(forged, {public_of(key)}, 1)) << i;
    }
    for (std::size_t size = 0; size < file.size(); size++)
        EXPECT_FALSE(open_head(file.substr(0, size), {public_of(key)}, 1)) << size;
}

TEST(FleetHead, AnotherKeyOrTooFewOfThemAreNotEnough) {
    const SecretKey a = must(make_key()), b = must(make_key()), other = must(make_key());
    const std::vector<PublicKey> keys{public_of(a, "a.pub"), public_of(b, "b.pub")};
    const Head head = some_head();
    EXPECT_FALSE(open_head(signed_by({other}, head), keys, 1));
    EXPECT_TRUE(bool(open_head(signed_by({a}, head), keys, 1)));
    EXPECT_FALSE(open_head(signed_by({a}, head), keys, 2));
    EXPECT_FALSE(open_head(signed_by({a, other}, head), keys, 2));
    EXPECT_TRUE(bool(open_head(signed_by({a, b}, head), keys, 2)));
    // One key is one vote: neither signing twice nor a second file with it is another.
    EXPECT_FALSE(open_head(signed_by({a, a}, head), keys, 2));
    EXPECT_FALSE(
        open_head(signed_by({a}, head), {public_of(a, "1.pub"), public_of(a, "2.pub")}, 2));
    // No key, no threshold: nothing is believed.
    EXPECT_FALSE(open_head(signed_by({a}, head), {}, 0));
    EXPECT_FALSE(open_head(head_message(head), keys, 0));
}

TEST(FleetHead, WhatIsSignedAndIsNoHeadIsRefused) {
    const SecretKey key = must(make_key());
    const std::string good = head_message(some_head());
    const auto opens = [&](const std::string& message) {
        return bool(open_head(must(sign(key, message)) + message, {public_of(key)}, 1));
    };
    EXPECT_TRUE(opens(good));
    const auto with = [&](const std::string& what, const std::string& other) {
        std::string changed = good;
        changed.replace(changed.find(what), what.size(), other);
        return changed;
    };
    EXPECT_FALSE(opens(with("\"release\":7", "\"release\":0")));
    EXPECT_FALSE(opens(with("\"release\":7", "\"release\":-7")));
    EXPECT_FALSE(opens(with("\"release\":7", "\"release\":7e3")));
    EXPECT_FALSE(opens(with("\"size\":4", "\"size\":5000000000")));
    EXPECT_FALSE(opens(with("\"sha256\":\"", "\"sha256\":\"../../")));
    EXPECT_FALSE(opens(with("2025", "2025-")));
    EXPECT_FALSE(opens("[]"));
    EXPECT_FALSE(opens(std::string(8000, '[')));
    EXPECT_FALSE(opens(""));
}

TEST(FleetBytes, NoMoreIsUnpackedThanWasSigned) {
    const std::string text = "policy\n";
    EXPECT_EQ(must(unpack(text, text.size())), text);
    EXPECT_EQ(must(unpack(must(compress(text)), text.size())), text);
    EXPECT_FALSE(unpack(text, text.size() - 1));
    EXPECT_FALSE(unpack(text, text.size() + 1));
    // 256 MiB of zeros in some kilobytes.
    const std::string bomb = must(compress(std::string(std::size_t{1} << 28, '\0')));
    ASSERT_LT(bomb.size(), 100'000U);
    EXPECT_FALSE(unpack(bomb, text.size()));
    EXPECT_FALSE(unpack(must(compress(text)).substr(0, 10), text.size()));
}

TEST(FleetBytes, Base64HasOneSpelling) {
    for (const char* const bytes : {"", "a", "ab", "abc", "abcd"})
        EXPECT_EQ(from_base64(base64(bytes)).value_or(""), bytes);
    for (const char* wrong : {"YQ", "YQ=", "YQ== ", " YQ==", "YR==", "Y*==", "YQ==YQ=="})
        EXPECT_FALSE(from_base64(wrong)) << wrong;
}

} // namespace
} // namespace netctl::fleet
