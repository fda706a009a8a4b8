//! Certificates for servers and clients of a test.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use tempfile::TempDir;

use crate::error::{Error, Result};

/// A certificate authority of a test's own. Its files, and those of the certificates that it signs, go with it.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: PathBuf,
    /// Its own directory, where it has one.
    _own: Option<TempDir>,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Authority {
    /// A new one, which nobody trusts yet.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn new(name: &str) -> Result<Self> {
        let own = TempDir::with_prefix("discovery-testbed-").map_err(failed)?;
        let within = Self::within(name, own.path())?;
        Ok(Self { _own: Some(own), ..within })
    }

    /// One whose files lie in this directory, and go with it.
    pub(crate) fn within(name: &str, directory: &Path) -> Result<Self> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(failed)?;
        let issuer = CertifiedIssuer::self_signed(parameters, key).map_err(failed)?;
        write(&directory.join("ca.crt"), &issuer.pem())?;
        Ok(Self { issuer, directory: directory.to_owned(), _own: None })
    }

    /// Its own certificate, as a PEM file: what a client trusts.
    pub fn certificate(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    /// A certificate for whoever listens on 127.0.0.1 as `localhost`.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn server(&self) -> Result<Certificate> {
        self.issue("localhost")
    }

    /// A certificate for a client that calls itself `name`.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn client(&self, name: &str) -> Result<Certificate> {
        self.issue(name)
    }

    fn issue(&self, name: &str) -> Result<Certificate> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.subject_alt_names = vec![
            SanType::DnsName("localhost".try_into().map_err(failed)?),
            SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        ];
        // etcd's gateway shows the server's certificate to the server itself, as a client.
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().map_err(failed)?;
        let signed = parameters.signed_by(&key, &self.issuer).map_err(failed)?;
        let file = |suffix: &str| self.directory.join(format!("{name}.{suffix}"));
        let files = Certificate { certificate: file("crt"), key: file("key") };
        write(&files.certificate, &signed.pem())?;
        write(&files.key, &key.serialize_pem())?;
        Ok(files)
    }
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).map_err(|error| Error::because(file.display(), error))
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::because("making a certificate", error)
}
