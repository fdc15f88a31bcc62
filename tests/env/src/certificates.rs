//! The throw-away certificate authority of one control plane, and the certificates and keys that it signs.
//! Nothing here leaves the folder of the run, and nothing is valid for another control plane.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::error::{Context, Result};
use crate::node::isolation::NODE_ADDRESS;

/// Paths of the files that the control plane and its administrator use.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// The authority that signed all of them.
    pub authority: PathBuf,
    /// The API server's certificate.
    pub server: PathBuf,
    /// The API server's key.
    pub server_key: PathBuf,
    /// The certificate of a member of `system:masters`.
    pub admin: PathBuf,
    /// The administrator's key.
    pub admin_key: PathBuf,
    /// Signs tokens of service accounts.
    pub service_account_key: PathBuf,
    /// Verifies tokens of service accounts.
    pub service_account_public_key: PathBuf,
}

impl Certificates {
    /// Makes a new set in `folder`.
    pub fn create(folder: &Path) -> Result<Self> {
        let authority = Authority::new()?;
        let (server, server_key) = authority.sign(&server_parameters()?)?;
        let (admin, admin_key) = authority.sign(&admin_parameters()?)?;
        let service_account_key =
            KeyPair::generate().context("making the key of the service accounts")?;
        let write = |name: &str, content: &str| {
            let path = folder.join(name);
            fs::write(&path, content)
                .context(format_args!("writing {}", path.display()))
                .map(|()| path)
        };
        Ok(Self {
            authority: write("ca.crt", &authority.certificate)?,
            server: write("apiserver.crt", &server)?,
            server_key: write("apiserver.key", &server_key)?,
            admin: write("admin.crt", &admin)?,
            admin_key: write("admin.key", &admin_key)?,
            service_account_key: write(
                "service-accounts.key",
                &service_account_key.serialize_pem(),
            )?,
            service_account_public_key: write(
                "service-accounts.pub",
                &service_account_key.public_key_pem(),
            )?,
        })
    }
}

/// A server's certificate for loopback, of an authority made for it alone.
#[derive(Debug, Clone)]
pub struct OwnCertificate {
    /// The authority's certificate (PEM).
    pub authority: String,
    /// The server's certificate (PEM).
    pub certificate: String,
    /// The server's key (PEM).
    pub key: String,
}

impl OwnCertificate {
    /// Makes a new one, unlike any other.
    pub fn create() -> Result<Self> {
        let authority = Authority::new()?;
        let (certificate, key) = authority.sign(&server_parameters()?)?;
        Ok(Self {
            authority: authority.certificate,
            certificate,
            key,
        })
    }
}

struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Result<Self> {
        let key = KeyPair::generate().context("making the authority's key")?;
        let mut parameters = parameters("pointsman-test-authority", &[])?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let certificate = parameters
            .self_signed(&key)
            .context("signing the authority's certificate")?
            .pem();
        Ok(Self {
            certificate,
            issuer: Issuer::new(parameters, key),
        })
    }

    fn sign(&self, parameters: &CertificateParams) -> Result<(String, String)> {
        let key = KeyPair::generate().context("making a key")?;
        let certificate = parameters
            .signed_by(&key, &self.issuer)
            .context("signing a certificate")?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

fn server_parameters() -> Result<CertificateParams> {
    let names = [
        "127.0.0.1",
        "10.0.0.1",
        NODE_ADDRESS,
        "localhost",
        "kubernetes",
        "kubernetes.default.svc",
    ];
    let mut parameters = parameters("kube-apiserver", &names)?;
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(parameters)
}

fn admin_parameters() -> Result<CertificateParams> {
    let mut parameters = parameters("pointsman-test-admin", &[])?;
    parameters
        .distinguished_name
        .push(DnType::OrganizationName, "system:masters");
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(parameters)
}

fn parameters(common_name: &str, names: &[&str]) -> Result<CertificateParams> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut parameters = CertificateParams::new(names).context("describing a certificate")?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters
        .distinguished_name
        .push(DnType::CommonName, common_name);
    Ok(parameters)
}
