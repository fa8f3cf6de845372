// The 128-bit identity of a domain, as in libvirt's <uuid>.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace virtuserns {

struct Uuid {
  std::array<std::uint8_t, 16> bytes{};
  auto operator<=>(const Uuid&) const = default;
};

// Accepts what virUUIDParse accepts: 32 hex digits with dashes or spaces between them anywhere.
[[nodiscard]] std::optional<Uuid> parse_uuid(std::string_view text);
// Lower case, 8-4-4-4-12.
[[nodiscard]] std::string format_uuid(const Uuid& uuid);
// Random (version 4), from getrandom(2).
[[nodiscard]] Uuid make_random_uuid();
// False for all bytes equal, which libvirt refuses as a host or domain identity.
[[nodiscard]] bool is_valid_uuid(const Uuid& uuid);

}  // namespace virtuserns
