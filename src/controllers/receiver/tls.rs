//! The receiver's certificate: read from two files, and read again when they change, as they do
//! when cert-manager renews them.
//!
//! Absent: stopping the operator. Without a certificate connections fail, and polling continues.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// How often the files are read.
const INTERVAL: Duration = Duration::from_secs(2);

/// A certificate in a folder: `tls.crt` and `tls.key`.
pub struct Certificate {
    folder: PathBuf,
    current: Arc<CertificateSlot>,
}

#[derive(Default)]
struct CertificateSlot(RwLock<Option<Arc<CertifiedKey>>>);

/// The contents of the two files.
#[derive(Eq, PartialEq)]
struct CertificateFiles {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Certificate {
    /// The certificate in this folder, which is read by [`Certificate::watch_files`].
    #[must_use]
    pub fn of(folder: PathBuf) -> Self {
        Self {
            folder,
            current: Arc::default(),
        }
    }

    /// The TLS configuration that serves this certificate.
    ///
    /// # Errors
    /// If TLS itself cannot be set up.
    pub fn server_config(&self) -> Result<ServerConfig, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let resolver = Arc::clone(&self.current) as Arc<dyn ResolvesServerCert>;
        let mut config = builder
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// Reads the files now and when they change, for ever.
    pub async fn watch_files(self) {
        let mut last = None;
        loop {
            let read = self.read().await;
            if last.as_ref() != Some(&read) {
                self.replace(&read);
                last = Some(read);
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    async fn read(&self) -> Result<CertificateFiles, String> {
        let read = async |name: &str| {
            let path = self.folder.join(name);
            tokio::fs::read(&path)
                .await
                .map_err(|error| format!("{} cannot be read: {error}", path.display()))
        };
        Ok(CertificateFiles {
            certificate: read("tls.crt").await?,
            key: read("tls.key").await?,
        })
    }

    /// Replaces the certificate by the one that was read. If it is invalid the previous one stays
    /// in use.
    fn replace(&self, read: &Result<CertificateFiles, String>) {
        let folder = self.folder.display();
        match read.as_ref().map_err(Clone::clone).and_then(parse) {
            Ok(key) => {
                *self
                    .current
                    .0
                    .write()
                    .unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(key));
                tracing::info!(%folder, "read the webhook receiver's certificate");
            }
            Err(cause) => {
                tracing::warn!(%folder, cause, "the webhook receiver's certificate cannot be used; the previous one stays in use");
            }
        }
    }
}

fn parse(files: &CertificateFiles) -> Result<CertifiedKey, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&files.certificate).collect();
    let chain = chain.map_err(|error| format!("tls.crt: {error}"))?;
    let key =
        PrivateKeyDer::from_pem_slice(&files.key).map_err(|error| format!("tls.key: {error}"))?;
    CertifiedKey::from_der(chain, key, &ring::default_provider())
        .map_err(|error| format!("tls.crt and tls.key: {error}"))
}

impl fmt::Debug for CertificateSlot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CertificateSlot")
    }
}

impl ResolvesServerCert for CertificateSlot {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
