//! The addresses to which requests for tenants may go. They are checked when a connection is made, so a name that
//! resolves to another address later is refused, too.
//!
//! Absent: requests, and the connections that a proxy makes.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Link-local addresses, and other addresses of instance metadata, which has the credentials of a node.
const METADATA: [&str; 7] = [
    "169.254.0.0/16",
    "fe80::/10",
    "fd00:ec2::254/128",
    "fd20:ce::254/128",
    "168.63.129.16/32",
    "100.100.100.200/32",
    "192.0.0.192/32",
];
/// Names of instance metadata.
const METADATA_NAMES: [&str; 3] = ["metadata.google.internal", "metadata", "instance-data"];
/// This machine, and addresses that are not of one machine.
const OWN: [&str; 6] = [
    "127.0.0.0/8",
    "::1/128",
    "0.0.0.0/8",
    "::/128",
    "224.0.0.0/4",
    "ff00::/8",
];
/// Where AWS gives a pod or a task credentials of its own. Clients of stores need them.
const POD_CREDENTIALS: [&str; 2] = ["169.254.170.2/32", "169.254.170.23/32"];

/// The addresses to which requests may go. The default refuses instance metadata.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AddressGuard {
    networks: Arc<Networks>,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Networks {
    /// Refused in any case.
    denied: Vec<IpNet>,
    /// Allowed, even if they are refused by default.
    allowed: Vec<IpNet>,
    /// Refused unless they are allowed.
    refused_by_default: Vec<IpNet>,
}

impl Default for AddressGuard {
    fn default() -> Self {
        let networks = Networks {
            refused_by_default: networks(&METADATA),
            ..Networks::default()
        };
        Self {
            networks: Arc::new(networks),
        }
    }
}

impl AddressGuard {
    /// A guard for tenants: it also refuses this machine and the API server. `allowed` takes precedence over that, and `denied`
    /// over all.
    #[must_use]
    pub fn for_tenants(allowed: Vec<IpNet>, denied: Vec<IpNet>, api_server: &[IpAddr]) -> Self {
        let mut refused_by_default = networks(&METADATA);
        refused_by_default.extend(networks(&OWN));
        refused_by_default.extend(api_server.iter().copied().map(IpNet::from));
        Self {
            networks: Arc::new(Networks {
                denied,
                allowed,
                refused_by_default,
            }),
        }
    }

    /// The same with the addresses at which a pod gets its own credentials from AWS.
    #[must_use]
    pub(crate) fn with_pod_credentials(&self) -> Self {
        let mut networks = Networks::clone(&self.networks);
        networks.allowed.extend(self::networks(&POD_CREDENTIALS));
        Self {
            networks: Arc::new(networks),
        }
    }

    /// Whether requests may go to an address.
    #[must_use]
    pub fn admits(&self, address: IpAddr) -> bool {
        let address = embedded(address.to_canonical());
        let is_in = |networks: &[IpNet]| networks.iter().any(|each| each.contains(&address));
        let networks = &self.networks;
        !is_in(&networks.denied)
            && (is_in(&networks.allowed) || !is_in(&networks.refused_by_default))
    }

    /// Whether the host of a URL may be requested. A name is checked when it is resolved.
    #[must_use]
    pub(crate) fn admits_url(&self, url: &Url) -> bool {
        match url.host() {
            Some(Host::Ipv4(address)) => self.admits(address.into()),
            Some(Host::Ipv6(address)) => self.admits(address.into()),
            Some(Host::Domain(name)) => !METADATA_NAMES.contains(&name.trim_end_matches('.')),
            None => false,
        }
    }

    /// Resolves names to the addresses that are admitted.
    pub(crate) fn resolver(&self) -> Arc<GuardedResolver> {
        Arc::new(GuardedResolver(self.clone()))
    }
}

fn networks(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// The IPv4 address that an address of NAT64 stands for.
fn embedded(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(nat64) if nat64.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0] => {
            let low = nat64.to_bits() & u128::from(u32::MAX);
            IpAddr::from(Ipv6Addr::from_bits((0xffff << 32) | low)).to_canonical()
        }
        other => other,
    }
}

/// Resolves names to the addresses that a guard admits.
pub(crate) struct GuardedResolver(AddressGuard);

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.0.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let admitted: Vec<SocketAddr> =
                found.filter(|address| guard.admits(address.ip())).collect();
            if admitted.is_empty() {
                return Err("its name has no address that is allowed".into());
            }
            Ok(Box::new(admitted.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(guard: &AddressGuard, url: &str) -> bool {
        guard.admits_url(&Url::parse(url).expect("a URL"))
    }

    fn tenants(allowed: &[&str], denied: &[&str]) -> AddressGuard {
        let api_server = ["10.96.0.1".parse().expect("an address")];
        AddressGuard::for_tenants(networks(allowed), networks(denied), &api_server)
    }

    #[test]
    fn every_network_of_the_lists_is_one() {
        assert_eq!(networks(&METADATA).len(), METADATA.len());
        assert_eq!(networks(&OWN).len(), OWN.len());
        assert_eq!(networks(&POD_CREDENTIALS).len(), POD_CREDENTIALS.len());
    }

    #[test]
    fn instance_metadata_is_refused_in_every_form() {
        for url in [
            "http://169.254.169.254/latest",
            "http://[fd00:ec2::254]/",
            "http://[fd20:ce::254]/",
            "http://168.63.129.16/metadata",
            "http://[::ffff:169.254.169.254]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://2852039166/",
            "http://0xa9fea9fe/",
            "http://metadata.google.internal./x",
            "http://100.100.100.200/",
            "http://[fe80::1]/",
            "http://169.254.170.2/",
        ] {
            assert!(!admits(&AddressGuard::default(), url), "{url}");
            assert!(!admits(&tenants(&[], &[]), url), "{url}");
        }
        for url in ["http://127.0.0.1/", "https://s3.eu-west-1.amazonaws.com/"] {
            assert!(admits(&AddressGuard::default(), url), "{url}");
        }
    }

    #[test]
    fn tenants_reach_neither_this_machine_nor_the_api_server() {
        for url in [
            "http://127.0.0.1:8080/",
            "http://127.1/",
            "http://[::1]/",
            "http://0.0.0.0/",
            "http://[::]/",
            "https://10.96.0.1/api",
        ] {
            assert!(!admits(&tenants(&[], &[]), url), "{url}");
        }
        assert!(admits(&tenants(&[], &[]), "http://10.96.0.2:5000/"));
    }

    #[test]
    fn the_lists_of_the_administrator_take_precedence() {
        let guard = tenants(
            &["127.0.0.0/8", "10.96.0.1/32"],
            &["127.0.0.2/32", "10.0.0.0/8"],
        );
        assert!(admits(&guard, "http://127.0.0.1/"));
        assert!(!admits(&guard, "http://127.0.0.2/"));
        assert!(!admits(&guard, "http://10.96.0.1/"), "denied is denied");
    }

    #[test]
    fn clients_of_stores_may_ask_for_the_credentials_of_their_own_pod() {
        let guard = tenants(&[], &[]).with_pod_credentials();
        assert!(admits(&guard, "http://169.254.170.23/v1"));
        assert!(!admits(&guard, "http://169.254.169.254/"));
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_a_refused_address_is_not_connected_to() {
        let resolved = async |guard: &AddressGuard| {
            let name = "localhost".parse().expect("a name");
            guard.resolver().resolve(name).await.is_ok()
        };
        assert!(resolved(&AddressGuard::default()).await);
        assert!(!resolved(&tenants(&[], &[])).await);
        let loopback = tenants(&["127.0.0.0/8", "::1/128"], &[]);
        assert!(resolved(&loopback).await, "the same name, later");
    }
}
