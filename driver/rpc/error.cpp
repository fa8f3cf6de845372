#include "driver/rpc/error.h"

namespace virtuserns::rpc {
namespace {

int error_domain(int code) {
  switch (code) {
    case VIR_ERR_RPC:
    case VIR_ERR_AUTH_FAILED:
    case VIR_ERR_AUTH_CANCELLED:
    case VIR_ERR_AUTH_UNAVAILABLE:
      return VIR_FROM_RPC;
    case VIR_ERR_XML_ERROR:
    case VIR_ERR_XML_DETAIL:
      return VIR_FROM_XML;
    case VIR_ERR_INVALID_STREAM:
      return VIR_FROM_STREAMS;
    default:
      return VIR_FROM_LXC;
  }
}

}  // namespace

const char* message_template(int code) {
  switch (code) {
    case VIR_ERR_NO_MEMORY:
      return "out of memory: %s";
    case VIR_ERR_NO_SUPPORT:
      return "this function is not supported by the connection driver: %s";
    case VIR_ERR_NO_CONNECT:
      return "no connection driver available for %s";
    case VIR_ERR_INVALID_CONN:
      return "invalid connection pointer in %s";
    case VIR_ERR_INVALID_ARG:
      return "invalid argument: %s";
    case VIR_ERR_OPERATION_FAILED:
      return "operation failed: %s";
    case VIR_ERR_OS_TYPE:
      return "unknown OS type %s";
    case VIR_ERR_XML_ERROR:
      return "XML error: %s";
    case VIR_ERR_OPERATION_DENIED:
      return "operation forbidden: %s";
    case VIR_ERR_CONF_SYNTAX:
      return "configuration file syntax error: %s";
    case VIR_ERR_NO_DOMAIN:
      return "Domain not found: %s";
    case VIR_ERR_AUTH_FAILED:
      return "authentication failed: %s";
    case VIR_ERR_NO_SECURITY_MODEL:
      return "Security model not found: %s";
    case VIR_ERR_OPERATION_INVALID:
      return "Requested operation is not valid: %s";
    case VIR_ERR_CONFIG_UNSUPPORTED:
      return "unsupported configuration: %s";
    case VIR_ERR_OPERATION_TIMEOUT:
      return "Timed out during operation: %s";
    case VIR_ERR_NO_DOMAIN_SNAPSHOT:
      return "Domain snapshot not found: %s";
    case VIR_ERR_INVALID_STREAM:
      return "invalid stream pointer in %s";
    case VIR_ERR_ARGUMENT_UNSUPPORTED:
      return "argument unsupported: %s";
    case VIR_ERR_OPERATION_ABORTED:
      return "operation aborted: %s";
    case VIR_ERR_AUTH_CANCELLED:
      return "authentication cancelled: %s";
    case VIR_ERR_NO_DOMAIN_METADATA:
      return "metadata not found: %s";
    case VIR_ERR_OVERFLOW:
      return "numerical overflow: %s";
    case VIR_ERR_OPERATION_UNSUPPORTED:
      return "Operation not supported: %s";
    case VIR_ERR_AGENT_UNRESPONSIVE:
      return "Guest agent is not responding: %s";
    case VIR_ERR_RESOURCE_BUSY:
      return "resource busy: %s";
    case VIR_ERR_ACCESS_DENIED:
      return "access denied: %s";
    case VIR_ERR_DBUS_SERVICE:
      return "error from service: %s";
    case VIR_ERR_XML_INVALID_SCHEMA:
      return "XML document failed to validate against schema: %s";
    case VIR_ERR_AUTH_UNAVAILABLE:
      return "authentication unavailable: %s";
    case VIR_ERR_DEVICE_MISSING:
      return "device not found: %s";
    case VIR_ERR_NO_HOSTNAME:
      return "no hostname found: %s";
    case VIR_ERR_INTERNAL_ERROR:
      return "internal error: %s";
    // DOM_EXIST has "domain %s exists already" in libvirt, which wants a bare name; drivers there and here report
    // OPERATION_FAILED or a whole sentence.
    default:
      return "%s";  // SYSTEM_ERROR, RPC, XML_DETAIL, DOM_EXIST and what is not told apart here
  }
}

wire::RemoteError make_remote_error(const Error& error) {
  wire::RemoteError remote;
  remote.code = error.code;
  remote.domain = error_domain(error.code);
  remote.str1 = message_template(error.code);
  remote.str2 = error.text;
  std::string message = *remote.str1;
  message.replace(message.find("%s"), 2, error.text);
  if (message.size() > 64 * 1024) message.resize(64 * 1024);  // a reply that fits is worth more than a whole text
  if (remote.str2->size() > 64 * 1024) remote.str2->resize(64 * 1024);
  remote.message = std::move(message);
  if (error.sys_errno != 0) remote.int1 = error.sys_errno;  // as virReportSystemError
  return remote;
}

}  // namespace virtuserns::rpc
