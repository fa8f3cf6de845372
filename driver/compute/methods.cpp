#include "driver/compute/methods.h"

#include <algorithm>

#include "conf/base/log.h"
#include "conf/base/text.h"
#include "driver/compute/handlers.h"
#include "driver/compute/kinds.h"

namespace virtuserns::compute {
namespace {

// JSON-RPC 2.0, section 5.1; -32000 is the first of those that are ours.
constexpr int kParseError = -32700, kInvalidRequest = -32600, kMethodNotFound = -32601, kInvalidParams = -32602,
              kRefused = -32000;

std::string refusal(const Json& id, int code, const std::string& text, const Json& data = nullptr) {
  Json error = {{"code", code}, {"message", text}};
  if (!data.is_null()) error["data"] = data;
  return format_json({{"jsonrpc", "2.0"}, {"id", id}, {"error", error}});
}

std::string refusal(const Json& id, const Error& error) {
  const auto kind = kind_of(error);
  return refusal(id, kRefused, error.text, Json{{"kind", std::string(kind.name)}, {"retryable", kind.is_retryable}});
}

const Method* find_method(const std::string& name) {
  using Family = std::span<const Method> (*)();
  constexpr Family kFamilies[] = {host_methods,  life_methods,   migrate_methods,
                                  watch_methods, device_methods, image_methods};
  for (const auto family : kFamilies)
    for (const auto& method : family())
      if (method.name == name) return &method;
  return nullptr;
}

std::string unknown_param(const Method& method, const Object& params) {
  for (const auto& key : params.keys())
    if (std::find(method.params.begin(), method.params.end(), key) == method.params.end()) return key;
  return "";
}

}  // namespace

Answer answer(const Service& service, const Peer& peer, std::string_view text) {
  const auto parsed = parse_json(text);
  if (!parsed) return {refusal(nullptr, kParseError, parsed.error().text)};
  const auto request = Object::of(*parsed, "the request");
  if (!request) return {refusal(nullptr, kInvalidRequest, request.error().text + "; batches are refused")};
  const auto found_id = parsed->find("id");
  const Json id =
      found_id != parsed->end() && (found_id->is_number_integer() || found_id->is_string()) ? *found_id : Json();
  const auto name = request->text("method", 128);
  const auto version = request->text("jsonrpc", 8);
  if (!name || !version || *version != "2.0" || id.is_null())
    return {refusal(id, kInvalidRequest,
                    "a request needs \"jsonrpc\": \"2.0\", an id that is a number or a string, and a method")};
  const auto* method = find_method(*name);
  if (!method) return {refusal(id, kMethodNotFound, "there is no method " + quote(*name))};
  static const Json kNoParams = Json::object();
  const auto found_params = parsed->find("params");
  const auto params = Object::of(found_params == parsed->end() ? kNoParams : *found_params, "params");
  if (!params) return {refusal(id, kInvalidParams, params.error().text)};
  if (const auto unknown = unknown_param(*method, *params); !unknown.empty())
    return {refusal(id, kInvalidParams, *name + " has no parameter " + quote(unknown))};
  log_debug("compute.api", *name);
  Fd passed;
  const auto offered = service.compute.guests().check(method->feature);
  const auto result = offered ? method->handler({service, peer, *params, passed}) : Result<Json>(offered.error());
  if (!result) {
    log_info("compute.api", *name + ": " + result.error().text);
    return {refusal(id, result.error())};
  }
  return {format_json({{"jsonrpc", "2.0"}, {"id", id}, {"result", *result}}), *name == "events.subscribe",
          std::move(passed)};
}

std::string format_event(const DomainEvent& event, std::int64_t at) {
  return format_json({{"jsonrpc", "2.0"},
                      {"method", "event"},
                      {"params", {{"uuid", event.uuid}, {"event", std::string(event.name)}, {"at", at}}}});
}

}  // namespace virtuserns::compute
