//! Everything that the demo runs: two parts of the outside world, and Countersign's two from their own files.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::{Request, StatusCode, Uri};
use net::{Body, ClientOptions, FetchRequest, HttpClient, Listener, Roots, ServeLimits, Tasks, UrlTrust};
use secrecy::SecretString;

use super::configuration::{self, Places};
use super::files::Files;
use super::identity_provider::IdentityProvider;
use super::orders::Orders;
use super::tokens::Agents;
use super::world::World;
use crate::failure::{Exit, Failure};

/// How long Countersign's parts may take to be ready.
const START: Duration = Duration::from_secs(30);
/// How often they are asked.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// The logical audience of the demo's sidecar.
pub(super) const AUDIENCE: &str = "urn:example:countersign:support";

/// The outside world, running, and what Countersign will be started from.
pub(super) struct Parts {
    /// Signs people in.
    pub(super) people: IdentityProvider,
    /// The tool.
    pub(super) orders: Orders,
    /// The agents, with their keys.
    pub(super) agents: Agents,
    /// What the agents know.
    pub(super) world: World,
    /// Where everything listens.
    pub(super) places: Places,
}

impl Parts {
    /// Starts the outside world, and writes Countersign's files for it.
    pub(super) async fn start(files: &Files, tasks: &Tasks) -> Result<Self, Failure> {
        let (people_at, orders_at) = (listen().await?, listen().await?);
        let places = places(&people_at, &orders_at).await?;
        let people = IdentityProvider::new(places.url(places.people), places.url(places.authority))?;
        // Only the sidecar is told: it lies in a file that the configuration names.
        let credential = format!("orders-{}", uuid::Uuid::new_v4().simple());
        let orders = Orders::new(SecretString::from(credential.as_str()));
        let agents = Agents::new()?;
        configuration::write(files, &places, &agents, &credential)?;

        let answering = people.clone();
        serve(tasks, "identity provider", people_at, move |request| {
            let response = answering.answer(&request);
            async move { response }
        });
        let answering = orders.clone();
        serve(tasks, "orders API", orders_at, move |request| answering.clone().answer(request));

        let world = World {
            client: client()?,
            authority: places.url(places.authority),
            audience: AUDIENCE.to_owned(),
            sidecar: places.url(places.sidecar),
        };
        Ok(Self { people, orders, agents, world, places })
    }

    /// Returns when the authority and the sidecar say that they are ready.
    pub(super) async fn ready(&self) -> Result<(), Failure> {
        let wait = async {
            for address in [self.places.authority, self.places.health] {
                let url = format!("{}/readyz", self.places.url(address));
                let url: Uri = url.parse().map_err(|error| Failure::because(Exit::Failed, "no URL", error))?;
                while !self.answers(&url).await {
                    tokio::time::sleep(ASK_AGAIN).await;
                }
            }
            Ok(())
        };
        let late = || Failure::new(Exit::Unavailable, format!("the demo's parts are not ready after {START:?}"));
        tokio::time::timeout(START, wait).await.unwrap_or_else(|_| Err(late()))
    }

    async fn answers(&self, url: &Uri) -> bool {
        let request =
            FetchRequest { url: url.clone(), headers: http::HeaderMap::new(), deadline: START, max_bytes: 64 * 1024 };
        net::fetch(&self.world.client, request).await.is_ok_and(|answer| answer.status == StatusCode::OK)
    }
}

fn client() -> Result<HttpClient, Failure> {
    let tls = net::client_config(Roots::Platform)
        .map_err(|error| Failure::because(Exit::Unavailable, "cannot make an HTTP client", error))?;
    Ok(HttpClient::new(ClientOptions::new(tls, UrlTrust::Operator)))
}

async fn listen() -> Result<Listener, Failure> {
    net::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .await
        .map_err(|error| Failure::because(Exit::Unavailable, "the demo cannot listen", error))
}

/// Free ports for Countersign's parts, which bind them themselves, as their files say. All are held at once, so
/// that they differ.
async fn places(people: &Listener, orders: &Listener) -> Result<Places, Failure> {
    let (authority, sidecar, health) = (listen().await?, listen().await?, listen().await?);
    Ok(Places {
        people: people.local_addr(),
        orders: orders.local_addr(),
        authority: authority.local_addr(),
        sidecar: sidecar.local_addr(),
        health: health.local_addr(),
    })
}

fn serve<H, F>(tasks: &Tasks, name: &'static str, listener: Listener, handler: H)
where
    H: Fn(Request<hyper::body::Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = http::Response<Body>> + Send + 'static,
{
    let serving = net::serve(listener, ServeLimits::default(), tasks.clone(), move |_, request| handler(request));
    tasks.spawn(name, serving);
}
