"""Keys and their certificates, for what is signed."""
import base64
import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

UNUSED = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign",
                        "encipher_only", "decipher_only"), False)


class Issuer:
    """A key and its certificate: a root's, or one that another issuer has signed."""

    def __init__(self, name: str, issuer: "Issuer | None" = None):
        self.key = rsa.generate_private_key(65537, 1024)  # short: a property of an image has 255 characters
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        is_root, issuer, now = issuer is None, issuer or self, datetime.datetime.utcnow()
        builder = x509.CertificateBuilder(issuer.name, self.name, self.key.public_key(), x509.random_serial_number(),
                                          now - datetime.timedelta(days=1), now + datetime.timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(is_root, 0 if is_root else None), True)
        builder = builder.add_extension(x509.KeyUsage(digital_signature=True, key_cert_sign=is_root, **UNUSED), True)
        self.certificate = builder.sign(issuer.key, hashes.SHA256())

    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def sign_image(self, content: bytes, certificate: str) -> dict[str, str]:
        """The properties of a signed image. `certificate`: what the key manager knows this one's by."""
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH)
        return {"img_signature": base64.b64encode(self.key.sign(content, pss, hashes.SHA256())).decode(),
                "img_signature_hash_method": "SHA-256", "img_signature_key_type": "RSA-PSS",
                "img_signature_certificate_uuid": certificate}
