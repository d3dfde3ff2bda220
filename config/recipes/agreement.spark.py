"""Pairs from the topic into a table of Parquet files, each once, and how often they agree by minute.

understudy schema pair --dialect spark > pair.ddl
spark-submit --packages org.apache.spark:spark-sql-kafka-0-10_2.13:4.1.1 \
    agreement.spark.py 127.0.0.1:9092 shadow.pairs.v1 pair.ddl out

Run it again and it goes on where it stopped; `trigger(processingTime="1 minute")` makes it stay.
"""

import sys
from pathlib import Path

from pyspark.sql import SparkSession, functions as f

servers, topic, ddl, folder = sys.argv[1:]

spark = SparkSession.builder.appName("understudy-pairs").getOrCreate()
spark.conf.set("spark.sql.session.timeZone", "UTC")

messages = (
    spark.readStream.format("kafka")
    .option("kafka.bootstrap.servers", servers)
    .option("subscribe", topic)
    .option("startingOffsets", "earliest")
    .load()
)
pairs = (
    messages.select(f.from_json(f.col("value").cast("string"), Path(ddl).read_text()).alias("pair"))
    .select("pair.*")
    .withColumn("time", f.timestamp_millis("ts_ms"))
    # Delivery is at least once: a pair that comes again within a day is left out.
    .withWatermark("time", "1 day")
    .dropDuplicatesWithinWatermark(["pair_id"])
)
(
    pairs.writeStream.format("parquet")
    .option("path", f"{folder}/pairs")
    .option("checkpointLocation", f"{folder}/checkpoint")
    .trigger(availableNow=True)
    .start()
    .awaitTermination()
)

agreement = (
    spark.read.parquet(f"{folder}/pairs")
    .groupBy("route", "candidate", f.window("time", "1 minute").start.alias("minute"))
    .agg(
        f.count("*").alias("pairs"),
        f.count_if("comparable").alias("compared"),
        f.count_if("equal").alias("equal"),
        f.sum(f.when(f.col("comparable"), f.col("sample_weight"))).alias("stands_for"),
        f.percentile_approx("candidate_latency_ms", 0.99).alias("candidate_p99_ms"),
    )
)
agreement.orderBy("route", "candidate", "minute").show(truncate=False)
agreement.coalesce(1).write.mode("overwrite").json(f"{folder}/agreement")
