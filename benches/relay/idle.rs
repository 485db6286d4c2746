//! Sessions that have said a little and then say nothing: what one costs in memory, compressed and not.

use anyhow::Result;
use deltapush::proxy::relay::FOLD_TIME;

use super::common::client::Client;
use super::common::process::Process;
use super::common::tls::Authority;
use super::measure::PATIENCE;
use super::proxy::Proxy;

/// Sessions that are opened before anything is measured, so that what is made once is there.
const WARM_UP: usize = 8;

/// Parts in which the compressed ones come.
const WAVES: usize = 4;

/// The commands of a client before it idles: 2 KiB in commands of 64 bytes.
const COMMANDS: usize = 32;

/// Memory of one further session, with what its two TLS connections need, in bytes.
pub(crate) struct Costs {
    pub(crate) plain: u64,
    pub(crate) compressed: u64,
}

impl Costs {
    /// Opens so many sessions of each kind together.
    pub(crate) async fn measure(
        proxy: &Proxy,
        authority: &Authority,
        sessions: usize,
    ) -> Result<Self> {
        let process = Process::of(proxy.pid());
        let mut clients = Vec::new();
        for compressed in [false, true] {
            open(proxy, authority, WARM_UP, compressed, &mut clients).await?;
        }
        let before = process.resident()?;
        open(proxy, authority, sessions, false, &mut clients).await?;
        let between = process.resident()?;
        // The state of those that compress is made smaller once they say nothing, and the room that this leaves is taken by
        // those that come later: sessions do not all come at once.
        for wave in 0..WAVES {
            open(proxy, authority, (sessions + wave) / WAVES, true, &mut clients).await?;
            tokio::time::sleep(FOLD_TIME + FOLD_TIME / 4).await;
        }
        let after = process.resident()?;
        let each = |growth: u64| growth / sessions as u64;
        Ok(Self {
            plain: each(between.saturating_sub(before)),
            compressed: each(after.saturating_sub(between)),
        })
    }

    /// Reports if a compressed session takes at most a quarter more.
    pub(crate) fn are_close(&self) -> bool {
        self.compressed <= self.plain + self.plain / 4
    }
}

async fn open(
    proxy: &Proxy,
    authority: &Authority,
    sessions: usize,
    compressed: bool,
    clients: &mut Vec<Client>,
) -> Result<()> {
    for _ in 0..sessions {
        let session = async {
            let mut client = proxy.client(authority).await?;
            if compressed {
                client.compress().await?;
            }
            for number in 0..COMMANDS {
                let id = format!("{:012x}.{number:04}@mail.example.org", number * 7919);
                client.command(&format!("SEARCH HEADER MESSAGE-ID <{id}>")).await?;
            }
            anyhow::Ok(client)
        };
        clients.push(tokio::time::timeout(PATIENCE, session).await??);
    }
    Ok(())
}
