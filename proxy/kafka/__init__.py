"""What every client of Kafka here shares: settings, the client's log, and questions to a cluster."""
