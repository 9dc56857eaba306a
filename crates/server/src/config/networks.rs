//! Networks: a plain address is the smallest one.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Network(IpNet);

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let network = text.parse();
        let network = network.or_else(|_| text.parse().map(|address: IpAddr| address.into()));
        network
            .map(Self)
            .map_err(|_| format!("`{text}`: expected an address or a network such as 10.0.0.0/8"))
    }
}

pub(super) fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    let networks = Vec::<Network>::deserialize(from)?;
    Ok(networks
        .into_iter()
        .map(|Network(network)| network)
        .collect())
}
