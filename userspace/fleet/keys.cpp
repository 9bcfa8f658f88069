// SPDX-License-Identifier: GPL-2.0-only
#include "fleet/keys.hpp"

#include <array>
#include <cerrno>
#include <memory>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#include "fleet/bytes.hpp"
#include "sys/text_file.hpp"

namespace netctl::fleet {

namespace {

constexpr std::string_view algorithm = "Ed";
constexpr std::string_view comment = "untrusted comment: ";

struct FreeKey {
    void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};
using KeyHandle = std::unique_ptr<EVP_PKEY, FreeKey>;
using DigestHandle = std::unique_ptr<EVP_MD_CTX, FreeKey>;

const unsigned char* key_octets(std::string_view bytes) {
    return reinterpret_cast<const unsigned char*>(bytes.data());
}

/// signify's sum over a secret key, by which it tells a wrong passphrase: the first 8 bytes of SHA-512.
std::string checksum(std::string_view bytes) {
    std::array<unsigned char, SHA512_DIGEST_LENGTH> digest{};
    SHA512(key_octets(bytes), bytes.size(), digest.data());
    return {digest.begin(), digest.begin() + 8};
}

/// What the second line of a key's file holds, if it has `size` bytes.
std::string payload(std::string_view text, std::size_t size) {
    const std::size_t line = text.find('\n');
    if (!text.starts_with(comment) || line == std::string_view::npos)
        return {};
    text.remove_prefix(line + 1);
    const auto bytes = from_base64(text.substr(0, text.find('\n')));
    return bytes && bytes->size() == size && bytes->starts_with(algorithm) ? *bytes : std::string();
}

Result<> check_private(const std::string& path) {
    struct stat info {};
    if (stat(path.c_str(), &info) != 0)
        return Error::system(errno, Text::format("cannot read {}", path));
    if ((info.st_mode & 077) != 0)
        return Error::failed(Text::format("{} can be read by others", path),
                             Text::format("chmod 600 {}", path));
    return {};
}

/// Who may write there may give rules to this host.
Result<> check_unwritable(const std::string& path) {
    struct stat info {};
    if (stat(path.c_str(), &info) != 0)
        return Error::system(errno, Text::format("cannot read {}", path));
    if ((info.st_uid != 0 && info.st_uid != geteuid()) || (info.st_mode & 022) != 0)
        return Error::failed(Text::format("{} can be written by others", path),
                             "whoever can put a key there gives rules to this host");
    return {};
}

} // namespace

Result<SecretKey> make_key() {
    SecretKey made;
    made.number.resize(8);
    made.seed.resize(32);
    made.key.resize(32);
    if (RAND_bytes(reinterpret_cast<unsigned char*>(made.number.data()), 8) != 1 ||
        RAND_bytes(reinterpret_cast<unsigned char*>(made.seed.data()), 32) != 1)
        return Error::failed("there are no random numbers for a key");
    const KeyHandle key(
        EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, key_octets(made.seed), 32));
    std::size_t size = made.key.size();
    if (!key || EVP_PKEY_get_raw_public_key(
                    key.get(), reinterpret_cast<unsigned char*>(made.key.data()), &size) != 1)
        return Error::unsupported("OpenSSL has no Ed25519 here");
    return made;
}

std::string secret_text(const SecretKey& key) {
    const std::string both = key.seed + key.key;
    // "BK", 0 rounds, a salt: no passphrase, as `signify -G -n` makes it.
    const std::string bytes = std::string(algorithm) + "BK" + std::string(4 + 16, '\0') +
                              checksum(both) + key.number + both;
    return std::string(comment) + "netctl-fleet secret key\n" + base64(bytes) + "\n";
}

std::string public_text(const SecretKey& key) {
    return std::string(comment) + "netctl-fleet public key\n" +
           base64(std::string(algorithm) + key.number + key.key) + "\n";
}

Result<SecretKey> read_secret_key(const std::string& path) {
    NETCTL_TRY(check_private(path));
    const std::string bytes = payload(NETCTL_TRY(sys::read_text(path)), 104);
    if (bytes.empty())
        return Error::usage(Text::format("{} is no secret key", path),
                            "`netctl-fleet keygen NAME` makes one");
    if (bytes.substr(4, 4) != std::string(4, '\0'))
        return Error::usage(Text::format("{} is protected by a passphrase", path),
                            "netctl-fleet reads what `signify -G -n` makes; sign the head with "
                            "signify itself, or keep the key on an encrypted disk");
    const std::string both = bytes.substr(40, 64);
    if (checksum(both) != bytes.substr(24, 8))
        return Error::usage(Text::format("{} is damaged", path));
    return SecretKey{bytes.substr(32, 8), both.substr(0, 32), both.substr(32)};
}

Result<PublicKey> parse_public_key(const std::string& name, std::string_view text) {
    const std::string bytes = payload(text, 42);
    if (bytes.empty())
        return Error::usage(Text::format("{} is no public key", name),
                            "two lines, as `netctl-fleet keygen` and signify write them");
    return PublicKey{name, bytes.substr(2, 8), bytes.substr(10)};
}

Result<std::vector<PublicKey>> read_public_keys(const std::string& path) {
    NETCTL_TRY(check_unwritable(path));
    struct stat info {};
    const bool folder = stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
    std::vector<PublicKey> keys;
    for (const std::string& file : NETCTL_TRY(sys::text_files(path))) {
        if (folder && !file.ends_with(".pub"))
            continue;
        NETCTL_TRY(check_unwritable(file));
        keys.push_back(NETCTL_TRY(parse_public_key(file, NETCTL_TRY(sys::read_text(file)))));
    }
    if (keys.empty())
        return Error::failed(Text::format("the folder {} has no file *.pub", path),
                             "the public keys of those who may sign for this fleet");
    return keys;
}

Result<std::string> sign(const SecretKey& secret, std::string_view message) {
    const KeyHandle key(
        EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, key_octets(secret.seed), 32));
    const DigestHandle context(EVP_MD_CTX_new());
    std::string signature(64, '\0');
    std::size_t size = signature.size();
    if (!key || !context ||
        EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, key.get()) != 1 ||
        EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &size,
                       key_octets(message), message.size()) != 1)
        return Error::failed("OpenSSL could not sign");
    return std::string(comment) + "verify with the fleet's public key\n" +
           base64(std::string(algorithm) + secret.number + signature) + "\n";
}

bool verifies(const PublicKey& of, std::string_view signature, std::string_view message) {
    if (signature.size() != 74 || !signature.starts_with(algorithm) ||
        signature.substr(2, 8) != of.number || of.key.size() != 32)
        return false;
    const KeyHandle key(
        EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, key_octets(of.key), 32));
    const DigestHandle context(EVP_MD_CTX_new());
    return key && context &&
           EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, key.get()) == 1 &&
           EVP_DigestVerify(context.get(), key_octets(signature.substr(10)), 64,
                            key_octets(message), message.size()) == 1;
}

} // namespace netctl::fleet
