// SPDX-License-Identifier: GPL-2.0-only
//
// Ed25519 keys and signatures (RFC 8032) in the files of OpenBSD's signify(1): a line of comment, a line of base64.
// So whoever would rather not believe netctl-fleet checks what it signs with a tool that he knows.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/result.hpp"

namespace netctl::fleet {

struct PublicKey {
    std::string name;   ///< of its file, for messages
    std::string number; ///< 8 bytes by which a signature tells its key; proves nothing
    std::string key;    ///< 32 bytes
};

struct SecretKey {
    std::string number; ///< as above
    std::string seed;   ///< 32 bytes
    std::string key;    ///< the public one that belongs to it
};

Result<SecretKey> make_key();
std::string secret_text(const SecretKey& key);
std::string public_text(const SecretKey& key);

/// Errors: it is none, is protected by a passphrase, or its file can be read by others.
Result<SecretKey> read_secret_key(const std::string& path);
Result<PublicKey> parse_public_key(const std::string& name, std::string_view text);
/// The keys of a file, or of a folder's files `*.pub`. Errors: there are none; one is no key; or others than root and
/// the caller may write there.
Result<std::vector<PublicKey>> read_public_keys(const std::string& path);

/// The two lines of a signature.
Result<std::string> sign(const SecretKey& key, std::string_view message);
/// Whether the 74 bytes of a signature, as its line of base64 holds them, are that key's over the message.
bool verifies(const PublicKey& key, std::string_view signature, std::string_view message);

} // namespace netctl::fleet
